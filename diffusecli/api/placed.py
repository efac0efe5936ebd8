"""Results that lie in a file or a folder: found again from whatever folder the program changes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Placed:
    """A result and where it lies."""

    path: Path  # as it was asked for
    absolute: Path = field(init=False, repr=False, compare=False)  # the same, whatever folder the program changes to

    def __post_init__(self) -> None:
        """Fix the place."""
        object.__setattr__(self, "absolute", self.path.absolute())

    @property
    def place(self) -> Path:
        """Where it is from here: the path as it was shown, or, where the working directory is another one since, the absolute one."""
        return self.path if self.path.absolute() == self.absolute else self.absolute
