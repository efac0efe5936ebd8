"""Answers to one prompt, counted by text. Answers that reached the length limit are counted separately.

Plain Python. All code that draws, stores, reads or evaluates answers uses this class. Knows nothing of prompts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_CUT = re.compile(
    r"(?i)(?:model_|max_|context_)?length|max_(?:\w+_)?tokens|(?:\w+_)?token_?limit(?:_\w+)?|model_context_window_exceeded|truncated"
)
"""Names of the limit on servers: OpenAI, llama.cpp, Ollama; Anthropic, Gemini, Cohere; Mistral; OpenAI's Responses; older ones."""


class Answers(Counter[str]):
    """Number of occurrences per text. `unfinished` counts those that were cut at the limit.

    The same text can be in both. `copy` and `update` keep both counts; sums and differences are plain counters of all answers.

    >>> some = Answers(["{1}", "{1}", "Well, I"], unfinished={"Well, I": 1})
    >>> some.add("{1}", unfinished=True)
    >>> some.total(), some.finished, some.unfinished
    (4, Counter({'{1}': 2}), Counter({'Well, I': 1, '{1}': 1}))
    """

    def __init__(self, counts: Mapping[str, int] | Iterable[str] = (), unfinished: Mapping[str, int] | None = None) -> None:
        """`counts` includes the answers in `unfinished`; all others are finished."""
        self.unfinished: Counter[str] = Counter()
        super().__init__(counts)
        self.unfinished.update(unfinished or {})

    @property
    def finished(self) -> Counter[str]:
        """Answers that ended by themselves or at a stop text."""
        return self - self.unfinished

    def add(self, text: str, count: int = 1, *, unfinished: bool = False) -> None:
        """Add occurrences of one text."""
        self[text] += count
        if unfinished:
            self.unfinished[text] += count

    def update(self, other: Mapping[str, int] | Iterable[str] = (), /) -> None:  # type: ignore[override]
        """Add other answers. Answers of a plain counter are finished."""
        super().update(other)
        if isinstance(other, Answers):
            self.unfinished.update(other.unfinished)


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Texts and their counts, the most frequent first; those with the same count in the order of their characters.

    >>> by_count({"b": 1, "c": 2, "a": 1})
    [('c', 2), ('a', 1), ('b', 1)]
    """
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def with_unfinished(counts: Counter[str], unfinished: Mapping[str, int]) -> Answers:
    """The counts as answers with cut ones, at most as many as counted: their file may have been shortened."""
    found = Answers(counts)
    found.unfinished |= Counter({text: min(cut, counts[text]) for text, cut in unfinished.items() if text in counts})
    return found


def is_cut(reason: Any) -> bool:
    """Whether a server's finish reason is its token limit.

    >>> is_cut("length"), is_cut("MAX_TOKENS"), is_cut("max_output_tokens"), is_cut("stop"), is_cut(None)
    (True, True, True, False, False)
    """
    return isinstance(reason, str) and _CUT.fullmatch(reason) is not None
