"""Wording of a distribution: the request, the form of the targets, and whether the request asks for the form.

Knows distributions and prompts; knows nothing of files and tables.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from diffusecli.files.column_names import as_argument
from diffusecli.files.documents import Document
from diffusecli.files.text import canonical
from diffusecli.prompts.answer_forms import BRACES, form_sentence
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.parts import with_values
from diffusecli.prompts.placeholders import filled
from diffusecli.prompts.prompt import Draws, IndependentField, Prompt
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.spellings import spelled
from diffusecli.prompts.templates import within
from diffusecli.prompts.wording_checks import DOUBLED_BRACES, contradictions, loose_brace
from diffusecli.prompts.wordings import Drawn, draw_forms, draw_wordings
from diffusecli.system.errors import InputError, sentence

_MOST_DRAWS = 200
_SHOWN_DRAWS = 3
"""Maximum number of draws that a request shows."""


@dataclass(frozen=True)
class Wording:
    """Options for the wording of a distribution."""

    request: str | tuple[str, ...] | None = None  # instead of the distribution's own; several are wordings of one question
    wrap: str = BRACES  # %s is replaced by the outcome
    response: tuple[str, ...] = ("",)
    eos: bool = True
    system: str | None = None
    form: bool = False  # whether the user's requests get a clause on the form
    wordings: int | None = None  # how many to draw from the bank; None: the distribution's own request only
    held_out: int = 0  # how many to hold out: of the bank's beside `wordings`, or of the given requests
    seed: int = 0  # of the draw
    spellings: bool = False  # whether outcomes may also have other spellings
    draws: int | None = None  # in one answer
    separator: str = ", "  # between them
    replacement: bool = True  # whether an outcome may occur again

    def __post_init__(self) -> None:
        """Raise `InputError` for a wrap without %s, and for requests that contradict each other."""
        if any(not text.strip() for text in self.requests):
            raise InputError("--request '': is empty. Write what to ask")
        if twice := [text for index, text in enumerate(self.requests) if canonical(text) in map(canonical, self.requests[:index])]:
            raise InputError(f"--request {twice[0]!r}: is given twice. Remove one of them")
        if self.wrap.count("%s") != 1:
            raise InputError(f"--wrap {self.wrap!r}: must contain %s once, in place of the outcome, e.g. '{{%s}}'")
        if self.spellings and not self.eos:
            raise InputError("--spellings: needs answers that end, because 1 is a prefix of 10. Leave --no-eos out")
        if self.form and not self.requests:
            raise InputError(
                "--form: only for your own requests. Built-in requests already ask for the form. Add --request or leave --form out"
            )
        if not self.separator:
            raise InputError("--separator '': is empty. Write the text between two draws")
        if self.draws is not None and not 2 <= self.draws <= _MOST_DRAWS:
            raise InputError(f"--draws {self.draws}: must be between 2 and {_MOST_DRAWS}")
        if self.draws is None and (self.separator != ", " or not self.replacement):
            raise InputError("--separator and --no-replacement have no effect with one draw. Add --draws N")
        if self.draws is not None and self.wordings is not None:
            raise InputError(
                "--draws and --wordings: the built-in wordings ask for one draw. Give your own requests, or leave one of them out"
            )
        self._require_enough_wordings()

    def _require_enough_wordings(self) -> None:
        if self.wordings is not None and self.requests:
            raise InputError(
                "--wordings and your own requests exclude each other. Keep --wordings for the built-in ones or --request for yours"
            )
        for option, number, lowest in (("--wordings", self.wordings, 1), ("--held-out", self.held_out, 0)):
            if number is not None and number < lowest:
                raise InputError(f"{option} {number}: must be {lowest} or more")
        if not self.held_out or self.wordings is not None:
            return
        if len(self.requests) < 2:
            raise InputError(f"--held-out {self.held_out}: needs several requests. Add --wordings N, or more requests")
        if self.held_out >= len(self.requests):
            raise InputError(
                f"--held-out {self.held_out}: there are {len(self.requests)} requests, and at least one must be trained. "
                f"Hold out {len(self.requests) - 1} or fewer"
            )

    @property
    def requests(self) -> tuple[str, ...]:
        """The given requests. () for the distribution's own."""
        return (self.request,) if isinstance(self.request, str) else self.request or ()


def prompt_from(distribution: Distribution, wording: Wording, fields: Mapping[str, str] | None = None) -> Prompt:
    """The prompt that asks for one draw. `fields` fill the `{placeholders}` of given requests.

    The distribution's own request ends with a sentence on the form of the answer; given ones stay as they are, unless `wording.form` asks for
    it. Several get different clauses on the form, the first of them the usual sentence.
    """
    asked = _with_example(distribution) if wording.draws is None else _repeated(distribution, wording, wording.draws)
    requests, held_out = _requests(asked, wording, fields or {})
    wrap = wording.wrap if wording.draws is None else "%s"
    written = tuple(wrap.replace("%s", outcome) for outcome in distribution.outcomes)
    made = Prompt(
        request=requests,
        held_out_requests=held_out,
        response=wording.response,
        targets=spelled(distribution.outcomes, wrap) if wording.spellings else written,
        weights=distribution.weights,
        eos=wording.eos,
        system=None if wording.system is None else filled(wording.system, fields or {}, "--system"),
        template=within(distribution.template, wrap) if distribution.template else None,
        draws=_draws(wording),
        independent={name: IndependentField.model_validate(field) for name, field in distribution.independent_fields.items()},
    )
    if made.in_parts:
        _require_sound(made)
    return made


def _require_sound(prompt: Prompt) -> None:
    """Raise `InputError` for parts that cannot be combined, or that cannot be separated in an answer."""
    document = Document("", "{}", {})
    option = f"--draws {prompt.draws.n}" if prompt.draws is not None else f"--independent {','.join(prompt.independent)}"
    if wrong := next((p for p in content_problems(document, prompt) if p.severity == "error"), None):
        remedy = wrong.remedy.replace("reduce n, or set replace to true", "ask for fewer draws, or leave --no-replacement out")
        raise InputError(f"{option}: {wrong.message}. {sentence(remedy)}")


def _draws(wording: Wording) -> Draws | None:
    if wording.draws is None:
        return None
    return Draws(n=wording.draws, separator=wording.separator, replace=wording.replacement, wrap=wording.wrap)


def _repeated(distribution: Distribution, wording: Wording, draws: int) -> Distribution:
    """The distribution as requests name it: they ask for several draws, and an example has as many."""
    again = "" if wording.replacement else ", none of them twice"
    place = "one per line" if "\n" in wording.separator else "in one line"
    request = f"{distribution.request.rstrip('.')}. Do it {draws} times{again}, and list the {draws} results {place}."
    shown = wording.separator.join([distribution.noun] * min(draws, _SHOWN_DRAWS)) + (
        "" if draws <= _SHOWN_DRAWS else f"{wording.separator}…"
    )
    outcomes = distribution.outcomes
    example = wording.separator.join(outcomes[place % len(outcomes)] for place in range(draws))
    return replace(distribution, request=request, noun=shown, answer="list", outcomes=(example,), weights=None)


def _with_example(distribution: Distribution) -> Distribution:
    """The distribution as requests name it: with independent fields, an example is a whole record."""
    if not distribution.independent:
        return distribution
    example = with_values(distribution.outcomes[0], {name: next(iter(some)) for name, some in distribution.independent.items()})
    return replace(distribution, outcomes=(example,), weights=None)


def _requests(distribution: Distribution, wording: Wording, fields: Mapping[str, str]) -> Drawn:
    """The requests to train on and those that are held out."""
    if wording.wordings is not None:
        return draw_wordings(distribution, wording, wording.wordings, wording.held_out, wording.seed)
    given = tuple(filled(text, fields, "--request") for text in wording.requests) or (distribution.request,)
    trained, held_out = _held_out(given, wording.held_out, wording.seed)
    if wording.requests and not wording.form:
        return trained, held_out
    return draw_forms(trained, held_out, distribution, wording, len(trained), len(held_out), wording.seed)


def _held_out(requests: tuple[str, ...], count: int, seed: int) -> Drawn:
    """The requests without `count` of them, and these; the first is always trained."""
    apart = set(random.Random(seed).sample(range(1, len(requests)), count))
    return (
        tuple(text for index, text in enumerate(requests) if index not in apart),
        tuple(requests[index] for index in sorted(apart)),
    )


def form_doubts(distribution: Distribution, wording: Wording, fields: Iterable[str] = ()) -> list[str]:
    """Warnings for columns that are not replaced, for requests that do not ask for the form of the targets, and for targets in two pairs of braces."""
    found = []
    literal = re.findall(r"(?<!\{)\{([^{}]*)\}(?!\})", "\n".join((*wording.requests, wording.system or "")))
    if not fields and (column := next((name for name in literal if name in distribution.unused), None)) is not None:
        by = as_argument(column)
        found.append(f"{{{column}}} is not replaced. Use --group-by {by} or --given {by}")
    distribution = _with_example(distribution) if wording.draws is None else _repeated(distribution, wording, wording.draws)
    in_system = wording.system is not None and shows_form(wording.system, wording.wrap, fields)
    silent = [] if in_system else [text for text in wording.requests if not shows_form(text, wording.wrap, fields)]
    if silent and not wording.form and not wording.spellings and wording.wrap.strip() != "%s":
        clause = form_sentence(wording.wrap, distribution.noun, distribution.answer)
        clause = clause.replace("{", "{{").replace("}", "}}") if fields else clause
        found.append(
            f"--request{_which(silent, wording.requests)} ask for the form of the targets, {wording.wrap.replace('%s', distribution.noun)}. "
            f"Write it there, or add --form. It ends the request with: {clause}"
        )
    if not fields and (loose := next(((text, wrong) for text in wording.requests if (wrong := loose_brace(text))), None)):
        found.append(f"--request {loose[0]!r} {loose[1]}, and the model sees it as it is. Add the other brace or remove it")
    elif not fields and any("{{" in text for text in wording.requests) and not any("{{" in text for text in distribution.outcomes):
        found.append(f"--request has doubled braces, and the model sees them as they are. {sentence(DOUBLED_BRACES)}")
    if wording.wrap == BRACES and all(re.fullmatch(r"\{.*\}", text, re.DOTALL) for text in distribution.outcomes):
        found.append(
            f"the targets already have braces and get a second pair: {{{distribution.outcomes[0]}}}. Keep one pair with --wrap %s"
        )
    return found


def wording_doubts(wording: Wording, prompt: Prompt) -> list[str]:
    """Warnings for given requests that contradict others."""
    given = (*prompt.requests, *prompt.held_out_requests) if len(wording.requests) > 1 else ()
    return [
        f"--request {given[index]!r}: has {message} as in {given[other]!r}. Make all requests ask for the same"
        for index, other, message in contradictions(given, prompt.targets)
    ]


def _which(silent: Sequence[str], requests: Sequence[str]) -> str:
    """The subject of a warning and its verb.

    >>> _which(["a"], ["a"]), _which(["a"], ["a", "b"]), _which(["a", "b", "c"], ["a", "b", "c"])
    (' does not', " 'a' does not", " 'a' and 2 others do not")
    """
    others = {0: "", 1: " and another"}.get(len(silent) - 1, f" and {len(silent) - 1} others")
    return f"{f' {silent[0]!r}' if len(requests) > 1 else ''}{others} {'do' if others else 'does'} not"


def shows_form(template: str, wrap: str, fields: Iterable[str] = ()) -> bool:
    """Whether a request shows the targets' form itself, apart from its placeholders and their values."""
    opening, closing = (part.strip() for part in wrap.split("%s", maxsplit=1))
    known = set(fields)
    own = re.sub(r"(?<!\{)\{([^{}]*)\}", lambda match: "" if match[1] in known else match[0], template)
    return (opening or closing) in own or (wrap == BRACES and "brace" in own.lower())
