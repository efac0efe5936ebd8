"""Match samples to targets: exactly, trimmed, ignoring case, or by a pattern.

Knows strings only. Everything is compared in Unicode's normal form C.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product

from diffusecli.files.text import canonical
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.prompts.templates import Template
from diffusecli.system.errors import InputError, many, must_be_one_of

RULES = ("exact", "strip", "casefold", "regex:…")
_WIDER = {"casefold": "in any case", r"regex:^[^\w+-]*(\w[\w ]*)\W*$": "without the signs around the answer"}
_COMMONEST = 1000  # texts that decide whether a rule is tried on all of them


@dataclass(frozen=True)
class Matching:
    """A rule by its name. `key` returns the text that is compared."""

    rule: str = "strip"

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown rule or an invalid pattern."""
        if self.pattern is None and self.rule not in RULES[:-1]:
            raise InputError(f"--match {self.rule}: {must_be_one_of(self.rule, RULES)}")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise InputError(f"--match {self.rule}: is not a valid pattern of Python's re: {error}") from error

    @property
    def pattern(self) -> str | None:
        """The regular expression of `regex:…`."""
        return self.rule.removeprefix("regex:") if self.rule.startswith("regex:") else None

    def key(self, text: str) -> str | None:
        r"""The part of a text that is compared. None if the pattern does not match.

        >>> Matching().key(" {7}\n"), Matching("exact").key("{7} "), Matching("casefold").key(" Straße")
        ('{7}', '{7} ', 'strasse')
        >>> Matching(r"regex:\d+").key("I say {7}."), Matching(r"regex:is (\w+)").key("it is Ann, is Bob")
        ('7', 'Ann')
        """
        if self.pattern is not None:
            found = re.search(self.pattern, unicodedata.normalize("NFC", text))
            return None if found is None else canonical(found[min(1, len(found.groups()))] or "")
        if self.rule == "exact":
            return unicodedata.normalize("NFC", text)
        return canonical(canonical(text).casefold()) if self.rule == "casefold" else canonical(text)

    def in_words(self, prompts: Iterable[Prompt]) -> str:
        """Describe a valid answer to these prompts. With `eos: false` it only has to start with a target.

        >>> coin, name = Prompt(request="Toss.", targets=("heads",)), Prompt(request="A name.", targets=("Ann",), eos=False)
        >>> Matching().in_words([coin]), Matching().in_words([name])
        ('equal to a target after trimming white space', 'beginning with a target after trimming white space')
        >>> Matching("exact").in_words([coin, name])
        'equal to a target, white space too; for prompts with eos: false beginning with a target, white space too'
        """
        asked = [prompt for prompt in prompts if prompt.targets]
        ends = {prompt.eos for prompt in asked} or {True}
        if asked and all(prompt.draws is not None for prompt in asked):
            return f"as many draws as asked, each {self._words(True, 'a target')}"
        if asked and all(prompt.independent for prompt in asked):
            return f"{self._words(True, 'a target with known values of its independent fields')}"
        target = "a spelling of a target" if any(len(s) > 1 for prompt in asked for s in prompt.spellings) else "a target"
        return "; for prompts with eos: false ".join(self._words(whole, target) for whole in (True, False) if whole in ends)

    def _words(self, whole: bool, target: str) -> str:
        if self.pattern is not None:
            return f"what {self.pattern} finds in it {'equals' if whole else 'begins with'} what it finds in {target}"
        after = {
            "exact": ", white space too",
            "strip": " after trimming white space",
            "casefold": " whatever its case, white space trimmed",
        }
        return f"{'equal to' if whole else 'beginning with'} {target}{after[self.rule]}"


@dataclass(frozen=True)
class Tally:
    """Samples sorted into targets, other answers, and unfinished answers."""

    counts: tuple[int, ...]  # K
    off_target: Counter[str]  # finished
    unfinished: Counter[str] = field(default_factory=Counter)

    @cached_property
    def n(self) -> int:
        """N: all samples."""
        return self.on_target + self.off_target.total() + self.unfinished.total()

    @cached_property
    def on_target(self) -> int:
        """Number of samples that are a target."""
        return sum(self.counts)

    @property
    def unfinished_share(self) -> float:
        """Share of unfinished samples. nan without samples."""
        return self.unfinished.total() / self.n if self.n else math.nan

    @property
    def cells(self) -> tuple[int, ...]:
        """Counts of each target and each distinct other text. Each cut answer counts as a separate text."""
        return (*self.counts, *self.off_target.values(), *self.unfinished.values())


def tally(prompt: Prompt, samples: Mapping[str, int], matching: Matching | None = None) -> Tally:
    """Sort counted samples into the prompt's targets.

    A target counts in any spelling, after any response variant. With `eos: false` a sample counts for the target that it
    starts with, also if it was cut after it. Otherwise an answer that was cut is never a target.
    Raises `InputError` if the rule makes two targets equal.
    """
    target_of = target_finder(prompt, matching or Matching())
    counts = [0] * len(prompt.targets)
    off_target, unfinished = Counter[str](), Counter[str]()
    cut = samples.unfinished if isinstance(samples, Answers) else Counter[str]()
    for text, count in samples.items():
        index = target_of(text)
        short = cut[text] if prompt.eos or index is None else 0
        if short:
            unfinished[text] = short
        if index is not None:
            counts[index] += count - short
        elif count > short:
            off_target[text] = count - short
    return Tally(tuple(counts), off_target, unfinished)


def beginnings(prompt: Prompt, matching: Matching, unfinished: Mapping[str, int]) -> int:
    """How many of these cut answers could still become a target: those that a target begins with.

    Answers in several parts, and those that a pattern is searched in, all count: their ends are not known.

    >>> coin = Prompt(request="Toss.", targets=("heads", "tails"))
    >>> beginnings(coin, Matching(), {" he": 2, "tails": 1, "Sure! heads": 5, "Heads": 9})
    3
    """
    if prompt.in_parts or matching.pattern is not None:
        return sum(unfinished.values())
    keys = sorted(_cells(prompt, matching))
    cut = ((matching.key(text.rstrip("\ufffd")) or "", count) for text, count in unfinished.items())  # half a character
    return sum(count for key, count in cut if keys[(place := bisect_left(keys, key)) : place + 1] and keys[place].startswith(key))


def target_finder(prompt: Prompt, matching: Matching) -> Callable[[str], int | None]:
    """A function from an answer to the index of its target, or None.

    Raises `InputError` if the rule makes two targets equal.

    >>> target_of = target_finder(Prompt(request="Toss.", targets=("heads", "tails")), Matching())
    >>> target_of(" tails"), target_of("edge")
    (1, None)
    """
    if prompt.draws is not None:
        return _first_of_draws(prompt, prompt.draws, matching)
    if prompt.independent:
        return _without_independent(prompt, matching)
    cells = _cells(prompt, matching)
    lengths = sorted({len(key) for key in cells}, reverse=True) if not prompt.eos else []

    def target_of(text: str) -> int | None:
        key = matching.key(text)
        if key is None:
            return None
        return cells[key] if key in cells else next((cells[key[:length]] for length in lengths if key[:length] in cells), None)

    return target_of


def _first_of_draws(prompt: Prompt, draws: Draws, matching: Matching) -> Callable[[str], int | None]:
    """The first draw of a valid answer: as many draws as requested, all targets, none twice without replacement."""
    template, target_of = draws.template, target_finder(prompt.model_copy(update={"draws": None}), matching)

    def first_of(text: str) -> int | None:
        drawn = [target_of(value) for value in template.parse(canonical(text)) or ()]
        if not drawn or None in drawn or (not draws.replace and len(set(drawn)) < len(drawn)):
            return None
        return drawn[0]

    return first_of


def _without_independent(prompt: Prompt, matching: Matching) -> Callable[[str], int | None]:
    """The target of a valid answer: its independent fields have known values, and the others are those of a target.

    Raises `InputError` if the rule does not keep all fields of an answer, or makes two targets equal.
    """
    template = Template.of(prompt.template or "")
    compared = _compared(template, matching, prompt.alias)

    def same(value: str) -> str:
        return canonical(value.casefold()) if matching.rule == "casefold" else value

    free = [name in prompt.independent for name in template.fields]
    known = [
        {same(value) for value in prompt.independent[name].values} if name in prompt.independent else set()
        for name in template.fields
    ]
    cells: dict[tuple[str, ...], int] = {}
    for index, target in enumerate(prompt.targets):
        key = tuple(same(value) for value, own in zip(template.parse(target) or (), free, strict=True) if not own)
        if cells.setdefault(key, index) != index:
            raise InputError(
                f"{prompt.alias}: --match {matching.rule} does not distinguish {target!r} from {prompt.targets[cells[key]]!r}. Use a narrower rule"
            )

    def found(text: str) -> int | None:
        values = compared.parse(matching.key(text) or "")
        if values is None or any(own and value not in some for value, own, some in zip(values, free, known, strict=True)):
            return None
        return cells.get(tuple(value for value, own in zip(values, free, strict=True) if not own))

    return found


def _compared(template: Template, matching: Matching, alias: str) -> Template:
    """The template of the text that is compared: what the rule leaves of a record. Raises `InputError` if a field is missing there."""
    values = [f"qx{place}xq" for place in range(len(template.fields))]
    rest, texts = matching.key(template.fill(values)), list[str]()
    for value in values:
        before, found, rest = (rest or "").partition(value)
        if not found:
            raise InputError(f"{alias}: --match {matching.rule} does not keep all fields of an answer. Widen the pattern")
        texts.append(before)
    return Template(template.fields, (*texts, rest or ""))


def _cells(prompt: Prompt, matching: Matching) -> Mapping[str, int]:
    """Compared text -> index of the target."""
    return _cells_of(prompt.alias, prompt.spellings, prompt.variants, matching)


@lru_cache(maxsize=4)  # each prompt is used several times; a million targets take 4 s and 100 MB
def _cells_of(alias: str, targets: tuple[tuple[str, ...], ...], variants: tuple[str, ...], matching: Matching) -> Mapping[str, int]:
    cells: dict[str, int] = {}
    for index, spellings in enumerate(targets):
        for spelling, variant in product(spellings, variants):
            key = matching.key(variant + spelling)
            if key is None:
                raise InputError(f"{alias}: --match {matching.rule} does not match the target {spelling!r}. Widen the pattern")
            if cells.setdefault(key, index) != index:
                same = targets[cells[key]][0]
                raise InputError(
                    f"{alias}: --match {matching.rule} does not distinguish {spelling!r} from {same!r}. Use a narrower rule"
                )
    return cells


@dataclass(frozen=True)
class Missed:
    """Answers that are targets by a wider rule."""

    rule: str
    samples: int

    def __str__(self) -> str:
        """A sentence for reports, without a full stop.

        >>> str(Missed("casefold", 1))
        "1 off-target sample matches in any case: --match 'casefold'"
        """
        verb = "matches" if self.samples == 1 else "match"
        return f"{many(self.samples, 'off-target sample')} {verb} {_WIDER[self.rule]}: --match '{self.rule}'"


def wider_rules(prompts: Iterable[Prompt]) -> list[str]:
    r"""Rules that ignore case, or characters around the whole answer, and still distinguish all targets.

    >>> wider_rules([Prompt(request="Toss.", targets=("{heads}", "{tails}"))])
    ['casefold', 'regex:^[^\\w+-]*(\\w[\\w ]*)\\W*$']
    >>> wider_rules([Prompt(request="Give a sign.", targets=("{+1}", "{-1}"))])
    ['casefold']
    """
    prompts = list(prompts)
    if not all(prompt.eos for prompt in prompts):  # answers that only start with a target have no end to strip
        return []
    return [rule for rule in _WIDER if all(_distinguishes_all(prompt, Matching(rule)) for prompt in prompts)]


def nearly_matched(prompt: Prompt, off_target: Counter[str], rules: Sequence[str]) -> Missed | None:
    r"""The first rule by which at least half of the most common off-target texts are targets, or None.

    >>> prompt = Prompt(request="Toss.", targets=("{heads}", "{tails}"))
    >>> nearly_matched(prompt, Counter({"heads": 3, "**tails**": 2, "It landed on its edge": 4}), wider_rules([prompt])).samples
    5
    """
    commonest = dict(off_target.most_common(_COMMONEST))
    for rule in rules:
        found = tally(prompt, commonest, Matching(rule))
        if 2 * found.on_target >= found.n > 0:
            return Missed(rule, tally(prompt, off_target, Matching(rule)).on_target)
    return None


def _distinguishes_all(prompt: Prompt, matching: Matching) -> bool:
    try:
        _cells(prompt, matching)
    except InputError:
        return False
    return True
