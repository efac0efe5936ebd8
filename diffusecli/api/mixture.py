"""A folder of many different prompts, for programs."""

from __future__ import annotations

from pathlib import Path

from diffusecli.api.arguments import flag, whole
from diffusecli.api.inputs import AnyPath, path_of
from diffusecli.verbs.init_mixture import write_mixture


def init_mixture(n: int, folder: AnyPath, *, seed: int = 0, force: bool = False) -> Path:
    """Write `n` different prompts of many families, to train on, and held-out prompts that share nothing with them.

    - `folder`: gets `train/`, `held-out/wordings/`, `held-out/parameters/`, `held-out/families/` and a README.
    - `seed`: the same prompts for the same seed, on any machine.
    - `force`: replace an older mixture in the folder.

    Returns the folder. Raises `InputError`.
    """
    place = path_of(folder, "folder")
    write_mixture(whole("n", n, 1), place, seed=whole("seed", seed), force=flag("force", force))
    return place
