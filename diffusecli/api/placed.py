"""Results in a file or folder that are found again after the program changes its working directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Placed:
    """A result and its path."""

    path: Path  # as requested
    absolute: Path = field(init=False, repr=False, compare=False)  # the same, independent of the working directory

    def __post_init__(self) -> None:
        """Store the absolute path."""
        object.__setattr__(self, "absolute", self.path.absolute())

    @property
    def place(self) -> Path:
        """The path as shown, or the absolute path if the working directory has changed."""
        return self.path if self.path.absolute() == self.absolute else self.absolute
