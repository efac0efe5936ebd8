"""How a distribution is put into words: the request, the form of the targets, and whether the one asks for the other.

Knows distributions and prompts; knows nothing of files and tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diffusecli.prompts.answer_forms import BRACES, form_sentence
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Wording:
    """How a distribution is put into words, apart from what it says itself."""

    request: str | None = None  # instead of the distribution's own
    wrap: str = BRACES  # %s stands for the outcome
    response: tuple[str, ...] = ("",)
    eos: bool = True
    system: str | None = None
    form: bool = False  # whether the sentence on the form follows a request of the user's

    def __post_init__(self) -> None:
        """Raises `InputError` for a wrap without its place for the outcome."""
        if self.request is not None and not self.request.strip():
            raise InputError("--request '': is empty, write what to ask")
        if self.wrap.count("%s") != 1:
            raise InputError(f"--wrap {self.wrap!r}: must hold %s once, where the outcome goes, e.g. '{{%s}}'")


def prompt_from(distribution: Distribution, wording: Wording, fields: Mapping[str, str] | None = None) -> Prompt:
    """The prompt that asks for one draw. `fields` fill the `{placeholders}` of a given request.

    The distribution's own request ends with a sentence on the form of the answer; a given one stays as it is, unless `wording.form` asks for it.
    """
    own = wording.request is None
    request = distribution.request if wording.request is None else _filled(wording.request, fields or {}, "--request")
    return Prompt(
        request=f"{request} {form_sentence(wording.wrap, distribution.noun)}" if own or wording.form else request,
        response=wording.response,
        targets=tuple(wording.wrap.replace("%s", outcome) for outcome in distribution.outcomes),
        weights=distribution.weights,
        eos=wording.eos,
        system=None if wording.system is None else _filled(wording.system, fields or {}, "--system"),
    )


def form_doubts(distribution: Distribution, wording: Wording, fields: Iterable[str] = ()) -> list[str]:
    """Warnings: of a request that does not ask for the form of the targets, and of targets in two pairs of braces."""
    found = []
    shown = any(_shows(text, wording.wrap, fields) for text in (wording.request, wording.system) if text is not None)
    if wording.request is not None and not wording.form and wording.wrap.strip() != "%s" and not shown:
        sentence = form_sentence(wording.wrap, distribution.noun)
        sentence = sentence.replace("{", "{{").replace("}", "}}") if fields else sentence
        found.append(
            f"--request does not ask for the form of the targets, {wording.wrap.replace('%s', distribution.noun)}. "
            f"Write it there, or add --form, which ends the request with: {sentence}"
        )
    if wording.wrap == BRACES and all(re.fullmatch(r"\{.*\}", text, re.DOTALL) for text in distribution.outcomes):
        found.append(
            f"the targets have braces of their own and get a second pair: {{{distribution.outcomes[0]}}}. Keep one with --wrap %s"
        )
    return found


def _shows(template: str, wrap: str, fields: Iterable[str]) -> bool:
    """Whether a request shows the targets' form itself, apart from its placeholders and whatever fills them."""
    opening, closing = (part.strip() for part in wrap.split("%s", maxsplit=1))
    known = set(fields)
    own = re.sub(r"(?<!\{)\{([^{}]*)\}", lambda match: "" if match[1] in known else match[0], template)
    return (opening or closing) in own or (wrap == BRACES and "brace" in own.lower())


def _filled(template: str, fields: Mapping[str, str], option: str) -> str:
    """`{name}` replaced by its value, `{{` and `}}` by single braces; without any fields the text stays as it is."""
    if not fields:
        return template

    def value(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] not in fields:
            raise InputError(
                f"{option}: no column '{match[1]}' in --group-by, {did_you_mean(match[1], list(fields))} (a brace of the text itself is written twice)"
            )
        return fields[match[1]]

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}", value, template)
