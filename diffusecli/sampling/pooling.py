"""Answers to a prompt with several wordings: the number per wording, and all answers pooled.

The journal stores wordings separately. Engines draw the answers.
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
"""Receives the alias of the current prompt and its progress."""


def shares(prompt: Prompt, n: int) -> list[tuple[Prompt, int]]:
    """The wordings of a prompt with their shares of `n` answers: equal shares, the first ones one more; without empty shares.

    >>> die = Prompt(request=("Roll a die.", "Throw a die.", "Cast a die."), targets=("1", "2"), alias="die.json")
    >>> [(wording.alias, count) for wording, count in shares(die, 5)], [wording.alias for wording, _ in shares(die, 1)]
    ([('die.json#1', 2), ('die.json#2', 2), ('die.json#3', 1)], ['die.json#1'])
    """
    each, more = divmod(n, len(prompt.wordings))
    counts = [each + (place < more) for place in range(len(prompt.wordings))]
    return [(wording, count) for wording, count in zip(prompt.wordings, counts, strict=True) if count]


class Pooled:
    """The answers to one prompt in all its wordings. They go into the journal as they arrive; progress shows the total."""

    def __init__(self, prompt: Prompt, n: int, journal: Journal, report: Report) -> None:
        """`n`: total answers, including those in the journal."""
        self.prompt, self.n, self._journal, self._report = prompt, n, journal, report
        self._shares = shares(prompt, n)
        self._kept_as = [_kept_as(wording, len(prompt.wordings)) for wording, _ in self._shares]

    @property
    def wordings(self) -> int:
        """The number of wordings that are used."""
        return len(self._shares)

    @property
    def answers(self) -> Answers:
        """All answers so far."""
        return self._others(None)

    @property
    def tokens(self) -> int:
        """Tokens fed for all answers so far."""
        return sum(self._journal.tokens[kept.key] for kept in self._kept_as)

    @property
    def complete(self) -> bool:
        """Whether all answers have arrived."""
        return self.answers.total() >= self.n

    def limit(self, engine: Engine) -> int:
        """The maximum tokens of an answer: the lowest limit of all wordings."""
        return min(engine.limit(wording) for wording, _ in self._shares)

    def missing(self, engine: Engine) -> Iterator[Wanted]:
        """Requests to the engine, one per wording with missing answers."""
        for (wording, count), kept in zip(self._shares, self._kept_as, strict=True):
            if (have := self._journal.of(kept)).total() < count:
                yield self._wanted(engine, wording, count, have, kept)

    def report_end(self) -> None:
        """Report that all answers have arrived."""
        self._report(self.prompt.alias, Standing(self.answers, self.n, 0, self.tokens))

    def _wanted(self, engine: Engine, wording: Prompt, count: int, have: Answers, kept: Prompt) -> Wanted:
        def arrived(counts: Counter[str], tokens: int) -> None:
            self._journal.add(kept, counts, tokens, engine.about.get("refused", {}))
            if self.complete:
                self.report_end()

        had, paid = have.total(), self._journal.tokens[kept.key]  # in earlier samplings

        def watch(now: Standing) -> None:
            self._report(self.prompt.alias, now if self.wordings == 1 else self._with_others(kept, now, had, paid))

        return Wanted(wording, count, have, arrived, watch, pool=self.prompt.alias if self.wordings > 1 else "")

    def _with_others(self, kept: Prompt, now: Standing, had: int, paid: int) -> Standing:
        """The progress of the prompt, from that of one wording, or of all that share passes. `had`, `paid`: its answers and tokens before."""
        answers, tokens = self._others(kept), self.tokens - self._journal.tokens[kept.key] + paid
        answers.update(now.answers)
        missing_elsewhere = self.n - answers.total() - (now.wanted - now.answers.total())

        def tokens_left() -> float:
            """An answer to another wording costs as much as one to this wording."""
            left = now.tokens_left()
            return left + missing_elsewhere * (now.tokens_fed + left) / (now.wanted - had)

        return Standing(answers, self.n, now.rows, tokens + now.tokens_fed, tokens_left)

    def _others(self, but: Prompt | None) -> Answers:
        """The answers in the journal to all wordings except one."""
        found = Answers()
        for kept in self._kept_as:
            if kept is not but:
                found.update(self._journal.of(kept))
        return found


def _kept_as(wording: Prompt, wordings: int) -> Prompt:
    """A wording with its alias in the journal. The alias includes the number of wordings, which determines the number of answers."""
    return wording if wordings == 1 else wording.model_copy(update={"alias": f"{wording.alias}/{wordings}"})
