"""Python API: a folder of many different prompts."""

from __future__ import annotations

from pathlib import Path

from diffusecli.api.arguments import flag, whole
from diffusecli.api.inputs import AnyPath, path_of
from diffusecli.verbs.init_mixture import write_mixture


def init_mixture(n: int, folder: AnyPath, *, seed: int = 0, force: bool = False) -> Path:
    """Write `n` different training prompts of many families, and held-out prompts that share nothing with them.

    - `folder`: output folder for `train/`, `held-out/wordings/`, `held-out/parameters/`, `held-out/families/` and a README.
    - `seed`: the same seed gives the same prompts on any machine.
    - `force`: replace an older mixture in the folder.

    Returns the folder. Raises `InputError`.
    """
    place = path_of(folder, "folder")
    write_mixture(whole("n", n, 1), place, seed=whole("seed", seed), force=flag("force", force))
    return place
