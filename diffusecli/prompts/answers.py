"""Answers to one prompt, counted by text. Those that reached the length limit are counted apart.

Plain Python: whatever draws, keeps, reads or judges answers passes them on as this. Knows nothing of prompts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_CUT = re.compile(
    r"(?i)(?:model_|max_|context_)?length|max_(?:\w+_)?tokens|(?:\w+_)?token_?limit(?:_\w+)?|model_context_window_exceeded|truncated"
)
"""What servers call the limit: OpenAI, llama.cpp, Ollama; Anthropic, Gemini, Cohere; Mistral; OpenAI's Responses; older ones."""


class Answers(Counter[str]):
    """Each text with how often it came; `unfinished` says how many of these were cut at the limit before they ended.

    The same text may be both. `copy` and `update` keep the two apart; sums and differences are plain counters of all answers.

    >>> some = Answers(["{1}", "{1}", "Well, I"], unfinished={"Well, I": 1})
    >>> some.add("{1}", unfinished=True)
    >>> some.total(), some.finished, some.unfinished
    (4, Counter({'{1}': 2}), Counter({'Well, I': 1, '{1}': 1}))
    """

    def __init__(self, counts: Mapping[str, int] | Iterable[str] = (), unfinished: Mapping[str, int] | None = None) -> None:
        """All of `counts` are finished but those in `unfinished`, which are among them."""
        self.unfinished: Counter[str] = Counter()
        super().__init__(counts)
        self.unfinished.update(unfinished or {})

    @property
    def finished(self) -> Counter[str]:
        """Those that ended by themselves, or before a stop text."""
        return self - self.unfinished

    def add(self, text: str, count: int = 1, *, unfinished: bool = False) -> None:
        """Count one text so many times more."""
        self[text] += count
        if unfinished:
            self.unfinished[text] += count

    def update(self, other: Mapping[str, int] | Iterable[str] = (), /) -> None:  # type: ignore[override]
        """Add other answers; those of a plain counter are finished."""
        super().update(other)
        if isinstance(other, Answers):
            self.unfinished.update(other.unfinished)


def with_unfinished(counts: Counter[str], unfinished: Mapping[str, int]) -> Answers:
    """The counts as answers, of which so many were cut; never more than the counts have, for the file they came from may have been shortened."""
    found = Answers(counts)
    found.unfinished |= Counter({text: min(cut, counts[text]) for text, cut in unfinished.items() if text in counts})
    return found


def is_cut(reason: Any) -> bool:
    """Whether a server's reason why an answer ended is its limit of tokens.

    >>> is_cut("length"), is_cut("MAX_TOKENS"), is_cut("max_output_tokens"), is_cut("stop"), is_cut(None)
    (True, True, True, False, False)
    """
    return isinstance(reason, str) and _CUT.fullmatch(reason) is not None
