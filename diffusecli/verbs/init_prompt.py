"""`diffuse init-prompt`: a distribution becomes a prompt file, a grouped table a folder of them.

Knows distributions and prompts; the command line decides where the text goes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.files.endings import require_ending
from diffusecli.files.paths import exists
from diffusecli.files.writing import write_text
from diffusecli.prompts.catalogue import make_distribution
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.observations import distributions_in
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, did_you_mean

BRACES = "{%s}"
_MOST_NOTICES = 10
_LONGEST_NAME = 180  # bytes: what is written beside a file while it is made has a longer one


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
        request=f"{request} {_form_sentence(wording.wrap, distribution.noun)}" if own or wording.form else request,
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
        sentence = _form_sentence(wording.wrap, distribution.noun)
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
    """The prompts and where each is to go: `output` itself, or, where there are groups, a file of its own in that folder."""
    filled = {key: fields_of(distribution, groups, key) for key, distribution in distributions.items()}
    prompts = [prompt_from(distribution, wording, filled[key]) for key, distribution in distributions.items()]
    is_folder = groups or len(prompts) > 1 or (any(filled.values()) and output is not None and output.suffix != ".json")
    if not is_folder:
        if output is not None:
            require_ending(output, "-o", "a prompt is written as JSON", ".json")
        return {output: prompts[0]}
    what = "--group-by" if groups else "--shares-column"
    if output is None:
        raise InputError(f"{what} writes a folder of prompts: name it with -o")
    require_ending(output, "-o", f"{what} writes a folder of prompts")
    _require_different_requests(prompts, filled, what)
    return {output / name: prompt for name, prompt in zip(file_names(list(distributions)), prompts, strict=True)}


def fields_of(distribution: Distribution, groups: Sequence[str], key: Sequence[str]) -> dict[str, str]:
    """What fills the placeholders of a group's request: the values of its columns, or all that its row says."""
    return dict(distribution.fields) or dict(zip(groups, key, strict=True))


def _require_different_requests(prompts: Sequence[Prompt], filled: Mapping[tuple[str, ...], Mapping[str, str]], what: str) -> None:
    """Raises `InputError` for two groups that would be asked the same."""
    first: dict[tuple[str, str | None], tuple[str, ...]] = {}
    for prompt, key in zip(prompts, filled, strict=True):
        same = first.setdefault((prompt.request, prompt.system), key)
        if same != key:
            differ = [name for name, value in filled[key].items() if filled[same].get(name) != value] or list(filled[key])
            who = "all groups" if len({(p.request, p.system) for p in prompts}) == 1 else f"{', '.join(same)} and {', '.join(key)}"
            raise InputError(f"{what}: {who} would be asked the same, put {{{differ[0]}}} into --request or --system")


def write_prompts(prompts: Mapping[Path | None, Prompt], *, force: bool) -> None:
    """Write prompt files, all or, when one exists and `force` is not given, none (`InputError`)."""
    placed = {path: prompt for path, prompt in prompts.items() if path is not None}
    if not force and (there := [path for path in placed if exists(path)]):
        raise InputError(f"{there[0]}: exists already, name another place or add --force to replace it")
    for path, prompt in placed.items():
        write_text(path, prompt.to_json())


def file_names(groups: Sequence[tuple[str, ...]]) -> list[str]:
    """A file name for each group, from its values: safe, readable, no two alike.

    >>> file_names([("60",), ("60+",), ("< 18",), ("-5",), ("Köln",), ("東京",), ("9/10?",), ("9 10",)])
    ['60.json', '60-plus.json', 'under-18.json', 'minus-5.json', 'koln.json', '東京.json', '9-10.json', '9-10-2.json']
    """
    names: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for values in groups:
        stem = name = _cut("_".join(_slug(value) for value in values), _LONGEST_NAME)
        while f"{name}.json" in names:
            numbers[stem] = numbers.get(stem, 1) + 1
            name = f"{stem}-{numbers[stem]}"
        names[f"{name}.json"] = None
    return list(names)


def name_notices(groups: Iterable[tuple[str, ...]], paths: Iterable[Path | None]) -> list[str]:
    """Which group a file is of, where its name only differs from another's by a number."""
    plain = [(key, path) for key, path in zip(groups, paths, strict=True) if path is not None and key]
    numbered = [
        f"{path.name}: {', '.join(key)}" for key, path in plain if path.stem != _cut("_".join(map(_slug, key)), _LONGEST_NAME)
    ]
    more = len(numbered) - _MOST_NOTICES
    return [*numbered[:_MOST_NOTICES], *([f"and {more} more files with a number"] if more > 0 else [])]


def _form_sentence(wrap: str, noun: str) -> str:
    shown = wrap.replace("%s", noun)
    if wrap == BRACES:
        return f"Output only the {noun} between two curly braces, like this: {shown}. Don't output code."
    if wrap.strip() == "%s":
        return f"Output only the {noun}. Don't output code."
    return f"Output only the {noun} in exactly this form: {shown}. Don't output code."


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


_SPOKEN = {
    "+": "plus",
    "<": "under",
    ">": "over",
    "≤": "up-to",
    "≥": "from",
    "%": "percent",
    "&": "and",
    "#": "sharp",
    "$": "dollar",
    "€": "euro",
    "=": "equals",
}


def _slug(text: str) -> str:
    """A value as a part of a file name: letters and digits, signs that tell values apart as words.

    >>> _slug("C++"), _slug("< 1 %"), _slug("-3"), _slug("18-24"), _slug("?")
    ('c-plus-plus', 'under-1-percent', 'minus-3', '18-24', 'group')
    """
    text = re.sub(r"^[-−](?=[.\d])", "minus ", text)
    spoken = "".join(f" {_SPOKEN[sign]} " if sign in _SPOKEN else sign for sign in text)
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", spoken.casefold()) if not unicodedata.combining(sign))
    return _cut(re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", plain)).strip("-"), 60).strip("-") or "group"


def _cut(text: str, most: int) -> str:
    """As much of a text as fits into so many bytes."""
    return text.encode()[:most].decode(errors="ignore")
