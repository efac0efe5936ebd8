"""Prompts from named distributions and from tables, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from diffusecli.api.inputs import AnyPath, path_of
from diffusecli.api.notices import calling
from diffusecli.files.tables import Layout
from diffusecli.prompts.catalogue import FAMILIES
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.request_wording import BRACES, Wording, form_doubts, prompt_from
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, did_you_mean
from diffusecli.system.notices import Notice
from diffusecli.verbs.init_prompt import choose, fields_of, require_different_requests

_LISTS = ("group_by", "alpha_within")


def init_prompt(
    request: str | None = None, *, from_file: AnyPath | None = None, form: bool = False, wrap: str = BRACES,
    response: str | Sequence[str] = "", eos: bool = True, system: str | None = None, notice: Notice | None = None, **options: Any,
) -> Prompt:  # fmt: skip
    """A prompt whose targets and weights come from a named distribution, or from a file.

    - `request`: what to ask, word for word. By default the distribution's own request.
    - `form`: end `request` with the sentence on the form of the answer, such as "Output only the number between two curly braces".
    - `wrap`: the target around its outcome `%s`.
    - `response`, `eos`, `system`: the other fields of a prompt.
    - `from_file`: a file with one target a line, or a table. Its options are those of `diffuse init-prompt --from`.
    - `notice`: takes what was cut off or found out. By default it is logged.
    - `options`: one distribution by its name, and its modifiers: `uniform=(1, 6)`, `binomial=(10, 0.2)`, `poisson=4, tail=1e-6`,
      `choices={"heads": 1, "tails": 1}`, `benford=True`.

    Raises `InputError`.

    >>> die = init_prompt("Toss a die.", uniform=(1, 6), form=True)
    >>> die.request
    "Toss a die. Output only the number between two curly braces, like this: {number}. Don't output code."
    >>> die.targets
    ('{1}', '{2}', '{3}', '{4}', '{5}', '{6}')
    """
    made = init_prompts(
        request, from_file=from_file, form=form, wrap=wrap, response=response, eos=eos, system=system, notice=notice, **options
    )
    if len(made) > 1 or () not in made:
        raise InputError(f"{len(made)} groups make as many prompts: call init_prompts, which returns all of them")
    return made[()]


def init_prompts(
    request: str | None = None, *, from_file: AnyPath | None = None, form: bool = False, wrap: str = BRACES,
    response: str | Sequence[str] = "", eos: bool = True, system: str | None = None, notice: Notice | None = None, **options: Any,
) -> dict[tuple[str, ...], Prompt]:  # fmt: skip
    """As `init_prompt`, for files with several groups: a prompt for each, by the values of the group.

    `group_by=["age", "sex"]` makes a group of the rows that agree in these columns, `shares_column` one of each row. `{age}` in
    `request` and `system` takes the group's value. Without groups there is one prompt, under the key `()`.

    Raises `InputError`.
    """
    families, modifiers, reading = _sorted(options)
    wording = Wording(request, wrap, (response,) if isinstance(response, str) else tuple(response), eos, system, form)
    with calling(notice) as say:
        source = None if from_file is None else path_of(from_file)
        found = choose(families, modifiers, source, reading)
        filled = {key: fields_of(distribution, reading.group_by, key) for key, distribution in found.items()}
        made = {key: prompt_from(distribution, wording, filled[key]) for key, distribution in found.items()}
        require_different_requests(list(made.values()), filled, "group_by" if reading.group_by else "shares_column")
        for line in dict.fromkeys(_findings(found, filled, wording)):
            say(line)
    return made


def _findings(
    found: Mapping[tuple[str, ...], Distribution], filled: Mapping[tuple[str, ...], Mapping[str, str]], wording: Wording
) -> Iterator[str]:
    """What was found out about the distributions, and the first doubt."""
    for distribution in found.values():
        yield from distribution.notice.splitlines()
    doubts = [doubt for key, distribution in found.items() for doubt in form_doubts(distribution, wording, filled[key])]
    yield from (f"warning: {doubt}" for doubt in doubts[:1])


def _sorted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Reading]:
    """Families, their modifiers, and how a file is read. Raises `InputError` for a name that is none of these."""
    families = {name.replace("-", "_"): family for name, family in FAMILIES.items()}
    modifiers = {modifier for family in FAMILIES.values() for modifier in family.modifiers}
    of_tables = {field.name for field in fields(Layout)}
    of_reading = {field.name for field in fields(Reading)} - {"layout"}
    known = [*families, *sorted(modifiers | of_tables | of_reading)]
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"unknown option '{unknown[0]}', {did_you_mean(unknown[0], known)}")
    given = {name: value for name, value in options.items() if value is not None}
    layout = Layout(**{name: value for name, value in given.items() if name in of_tables})
    reading = {name: value for name, value in given.items() if name in of_reading}
    reading |= {name: _names(reading[name]) for name in _LISTS if name in reading}
    return (
        {name: _argument(name, families[name].arguments, value) for name, value in given.items() if name in families},
        {name: str(value) if name == "step" else value for name, value in given.items() if name in modifiers},
        Reading(**reading, layout=layout),
    )


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _argument(name: str, kinds: tuple[type, ...], value: Any) -> Any:
    """What a family's option would hold; raises `InputError` for other values, or another number of them."""
    if not kinds:
        return value
    if kinds == (str,) and isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str)  # choices as a list or a mapping
    values = (value,) if len(kinds) == 1 else tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(values) != len(kinds):
        raise InputError(f"{name}: takes {len(kinds)} values, e.g. {FAMILIES[name.replace('_', '-')].example}")
    try:
        made = tuple(kind(one) for kind, one in zip(kinds, values, strict=True))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}. Write it as in {FAMILIES[name.replace('_', '-')].example}") from error
    if any(kind is int and whole != one for kind, whole, one in zip(kinds, made, values, strict=True)):
        raise InputError(f"{name}: {value!r} must have whole numbers, as in {FAMILIES[name.replace('_', '-')].example}")
    return made[0] if len(kinds) == 1 else made
