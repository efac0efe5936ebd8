"""The families of the mixture by name. Finds every one in the modules `families_of_*.py`; knows none of them."""

from __future__ import annotations

from collections.abc import Mapping

from diffusecli.prompts.mixture import (
    families_of_chances,
    families_of_everyday,
    families_of_games,
    families_of_numbers,
    families_of_options,
)
from diffusecli.prompts.mixture.drawn import DrawsFamily

_MODULES = (families_of_options, families_of_chances, families_of_numbers, families_of_games, families_of_everyday)

MIXTURE: Mapping[str, DrawsFamily] = {
    found.name: found for module in _MODULES for found in vars(module).values() if isinstance(found, DrawsFamily)
}
