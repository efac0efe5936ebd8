"""What a tokenizer makes of a prompt, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class TokenView:
    """What a tokenizer makes of a prompt."""

    alias: str
    prompt_tokens: tuple[str, ...]
    target_tokens: tuple[tuple[str, tuple[str, ...]], ...]  # (answer text, its tokens with the terminator)
    fed_as_rows: int  # tokens that one row per target feeds
    fed_packed: int  # tokens that the prefix tree feeds

    @property
    def longest(self) -> int:
        """The tokens of the longest answer, its end included: what sampling takes at least."""
        return max((len(tokens) for _, tokens in self.target_tokens), default=0)
