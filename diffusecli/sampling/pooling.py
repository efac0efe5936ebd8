"""The answers to a prompt with several wordings: how many each wording gets, and all of them as one set.

Knows the journal, which keeps wordings apart, and what an engine is asked for; how answers are drawn is the engine's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.journal import Journal
from diffusecli.sampling.engine import Engine, Wanted
from diffusecli.sampling.settings import Standing

Report = Callable[[str, Standing], None]
"""Takes the alias of the prompt under way and how far it is."""


def shares(prompt: Prompt, n: int) -> list[tuple[Prompt, int]]:
    """The wordings of a prompt, each with its part of `n` answers: equal parts, the first ones one more. Without the empty parts.

    >>> die = Prompt(request=("Roll a die.", "Throw a die.", "Cast a die."), targets=("1", "2"), alias="die.json")
    >>> [(wording.alias, count) for wording, count in shares(die, 5)], [wording.alias for wording, _ in shares(die, 1)]
    ([('die.json#1', 2), ('die.json#2', 2), ('die.json#3', 1)], ['die.json#1'])
    """
    each, more = divmod(n, len(prompt.wordings))
    counts = [each + (place < more) for place in range(len(prompt.wordings))]
    return [(wording, count) for wording, count in zip(prompt.wordings, counts, strict=True) if count]


class Pooled:
    """The answers to one prompt, in all its wordings; they go into the journal as they arrive, and the user sees their sum."""

    def __init__(self, prompt: Prompt, n: int, journal: Journal, report: Report) -> None:
        """`n` answers in all, those in the journal among them."""
        self.prompt, self.n, self._journal, self._report = prompt, n, journal, report
        self._shares = shares(prompt, n)
        self._kept_as = [_kept_as(wording, len(prompt.wordings)) for wording, _ in self._shares]

    @property
    def wordings(self) -> int:
        """How many are asked."""
        return len(self._shares)

    @property
    def answers(self) -> Answers:
        """All that are there."""
        return self._others(None)

    @property
    def tokens(self) -> int:
        """Fed for all that are there."""
        return sum(self._journal.tokens[kept.key] for kept in self._kept_as)

    @property
    def complete(self) -> bool:
        """Whether all answers are there."""
        return self.answers.total() >= self.n

    def limit(self, engine: Engine) -> int:
        """The most tokens of an answer, of the wording that leaves the fewest."""
        return min(engine.limit(wording) for wording, _ in self._shares)

    def missing(self, engine: Engine) -> Iterator[Wanted]:
        """What the engine has to draw: a part for each wording that lacks answers."""
        for (wording, count), kept in zip(self._shares, self._kept_as, strict=True):
            if (have := self._journal.of(kept)).total() < count:
                yield self._wanted(engine, wording, count, have, kept)

    def report_end(self) -> None:
        """Show that all answers are there."""
        self._report(self.prompt.alias, Standing(self.answers, self.n, 0, self.tokens))

    def _wanted(self, engine: Engine, wording: Prompt, count: int, have: Answers, kept: Prompt) -> Wanted:
        def arrived(counts: Counter[str], tokens: int) -> None:
            self._journal.add(kept, counts, tokens, engine.about.get("refused", {}))
            if self.complete:
                self.report_end()

        def watch(now: Standing) -> None:
            self._report(self.prompt.alias, now if self.wordings == 1 else self._with_others(kept, now))

        return Wanted(wording, count, have, arrived, watch)

    def _with_others(self, kept: Prompt, now: Standing) -> Standing:
        """How far the prompt is, when one of its wordings is so far."""
        answers, tokens = self._others(kept), self.tokens - self._journal.tokens[kept.key]
        answers.update(now.answers)
        return Standing(answers, self.n, now.rows, tokens + now.tokens_fed)

    def _others(self, but: Prompt | None) -> Answers:
        """The answers in the journal, to all wordings but one."""
        found = Answers()
        for kept in self._kept_as:
            if kept is not but:
                found.update(self._journal.of(kept))
        return found


def _kept_as(wording: Prompt, wordings: int) -> Prompt:
    """A wording as the journal calls it: of another number of wordings it would have another number of answers."""
    return wording if wordings == 1 else wording.model_copy(update={"alias": f"{wording.alias}/{wordings}"})
