"""`diffuse init-prompt`: a distribution becomes a prompt file, a grouped table a folder of them.

Knows distributions and prompts; the command line decides where the text goes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.distributions import Distribution, make_distribution
from diffusecli.endings import require_ending
from diffusecli.errors import InputError, did_you_mean
from diffusecli.observations import Reading, distributions_in
from diffusecli.places import exists
from diffusecli.prompt import Prompt
from diffusecli.runs import write_text

BRACES = "{%s}"
_LONGEST_NAME = 180  # signs: what is written beside a file while it is made has a longer one


@dataclass(frozen=True)
class Wording:
    """How a distribution is put into words, apart from what it says itself."""

    request: str | None = None  # instead of the distribution's own
    wrap: str = BRACES  # %s stands for the outcome
    response: tuple[str, ...] = ("",)
    eos: bool = True
    system: str | None = None

    def __post_init__(self) -> None:
        """Raises `InputError` for a wrap without its place for the outcome."""
        if self.request is not None and not self.request.strip():
            raise InputError("--request '': is empty, write what to ask")
        if self.wrap.count("%s") != 1:
            raise InputError(f"--wrap {self.wrap!r}: must hold %s once, where the outcome goes, e.g. '{{%s}}'")


def prompt_from(distribution: Distribution, wording: Wording, fields: Mapping[str, str] | None = None) -> Prompt:
    """The prompt that asks for one draw. `fields` fill the `{placeholders}` of a given request.

    A sentence on the format is added unless the request shows it already.
    """
    request = distribution.request if wording.request is None else _filled(wording.request, fields or {}, "--request")
    shows_format = wording.request is not None and _shows(wording.request, wording.wrap, fields or {})
    return Prompt(
        request=request if shows_format else f"{request} {_format_sentence(wording.wrap, distribution.noun)}",
        response=wording.response,
        targets=tuple(wording.wrap.replace("%s", outcome) for outcome in distribution.outcomes),
        weights=distribution.weights,
        eos=wording.eos,
        system=None if wording.system is None else _filled(wording.system, fields or {}, "--system"),
    )


def choose(
    families: Mapping[str, Any], modifiers: Mapping[str, Any], source: Path | None, reading: Reading
) -> dict[tuple[str, ...], Distribution]:
    """The distribution that was asked for, or one per group of a table.

    `families` maps family names (as parameters: underscores, no dashes) to what their options were given (None or False: nothing). Raises
    `InputError` unless exactly one family or file is named, with options that go with it.
    """
    chosen = {f"--{name.replace('_', '-')}": value for name, value in families.items() if value is not None and value is not False}
    named = [*chosen, *(["--from"] if source is not None else [])]
    if len(named) != 1:
        given = f"{' and '.join(named)} exclude each other, keep one" if named else "name a distribution, e.g. --binomial 10 0.2"
        raise InputError(f"{given} (`diffuse init-prompt --list` shows all)")
    if source is None:
        if reading != Reading():
            raise InputError("--column, --count, --group-by and the like describe a file: name it with --from")
        return {(): make_distribution(named[0].removeprefix("--"), chosen[named[0]], modifiers)}
    if foreign := [f"--{name.replace('_', '-')}" for name, value in modifiers.items() if value is not None]:
        raise InputError(f"{foreign[0]} does not go with --from, leave it out")
    return distributions_in(source, reading)


def prompts_from(
    distributions: Mapping[tuple[str, ...], Distribution], wording: Wording, groups: tuple[str, ...], output: Path | None
) -> dict[Path | None, Prompt]:
    """The prompts and where each is to go: `output` itself, or, with groups, a file of its own in that folder."""
    if output is not None and not groups:
        require_ending(output, "-o", "a prompt is written as JSON", ".json")
    if not groups:
        return {output: prompt_from(next(iter(distributions.values())), wording)}
    if output is None:
        raise InputError("--group-by writes a folder of prompts: name it with -o")
    require_ending(output, "-o", "--group-by writes a folder of prompts")
    prompts = [prompt_from(d, wording, dict(zip(groups, key, strict=True))) for key, d in distributions.items()]
    if len(prompts) > 1 and len({(prompt.request, prompt.system) for prompt in prompts}) == 1:
        raise InputError(f"--group-by: all groups would be asked the same, put {{{groups[0]}}} into --request or --system")
    return {output / name: prompt for name, prompt in zip(file_names(list(distributions)), prompts, strict=True)}


def write_prompts(prompts: Mapping[Path | None, Prompt], *, force: bool) -> None:
    """Write prompt files, all or, when one exists and `force` is not given, none (`InputError`)."""
    placed = {path: prompt for path, prompt in prompts.items() if path is not None}
    if not force and (there := [path for path in placed if exists(path)]):
        raise InputError(f"{there[0]}: exists already, name another place or add --force to replace it")
    for path, prompt in placed.items():
        write_text(path, prompt.to_json())


def file_names(groups: Sequence[tuple[str, ...]]) -> list[str]:
    """A file name for each group, from its values: safe, readable, no two alike.

    >>> file_names([("North America", "9/10?"), ("North_America", "9 10")])
    ['north-america_9-10.json', 'north-america_9-10-2.json']
    """
    names: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for values in groups:
        stem = name = "_".join(_slug(value) for value in values)[:_LONGEST_NAME]
        while f"{name}.json" in names:
            numbers[stem] = numbers.get(stem, 1) + 1
            name = f"{stem}-{numbers[stem]}"
        names[f"{name}.json"] = None
    return list(names)


def _format_sentence(wrap: str, noun: str) -> str:
    shown = wrap.replace("%s", noun)
    if wrap == BRACES:
        return f"Output only the {noun} between two curly braces, like this: {shown}. Don't output code."
    if wrap.strip() == "%s":
        return f"Output only the {noun}. Don't output code."
    return f"Output only the {noun} in exactly this form: {shown}. Don't output code."


def _shows(template: str, wrap: str, fields: Mapping[str, str]) -> bool:
    """Whether a request shows the targets' format itself, apart from its placeholders and whatever fills them."""
    opening = wrap.split("%s", maxsplit=1)[0]
    own = re.sub(r"\{([^{}]*)\}", lambda match: "" if match[1] in fields else match[0], template)
    return bool(opening.strip()) and opening in own


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


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60] or "group"
