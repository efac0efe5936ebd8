"""Python API: prompts from named distributions and from tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date, time
from numbers import Number, Real
from pathlib import Path
from typing import Any

from diffusecli.api.arguments import (
    flag,
    function,
    is_frame,
    is_missing,
    is_numpy_scalar,
    number,
    optional,
    pairs_or_items,
    shown,
    text,
    texts,
    whole,
    wrong,
)  # fmt: skip
from diffusecli.api.inputs import AnyPath, path_of
from diffusecli.api.notices import calling
from diffusecli.files.tables import Layout
from diffusecli.prompts.answer_forms import BRACES
from diffusecli.prompts.catalogue import FAMILIES
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.request_wording import Wording, form_doubts, prompt_from, wording_doubts
from diffusecli.prompts.weighing import Reading
from diffusecli.system.errors import InputError, did_you_mean, sentence
from diffusecli.system.notices import Notice
from diffusecli.verbs.init_prompt import choose, fields_of, require_different_requests

_LISTS = ("group_by", "alpha_within", "bins", "independent")
_WHOLE = {"top": 1, "skip_rows": 0, "header_rows": 0, "decimals": 0}  # option -> lowest value
_NUMBERS = {"alpha": 0.0, "min_count": 0.0, "tail": 0.0}
_FLAGS = ("count",)


def init_prompt(
    request: str | Sequence[str] | None = None, *, from_file: AnyPath | None = None, form: bool = False, wrap: str = BRACES,
    wordings: int | None = None, held_out: int = 0, seed: int = 0, response: str | Sequence[str] = "", eos: bool = True,
    system: str | None = None, spellings: bool = False, draws: int | None = None, separator: str = ", ", replacement: bool = True,
    notice: Notice | None = None, **options: Any,
) -> Prompt:  # fmt: skip
    """A prompt with targets and weights from a named distribution or a file.

    - `request`: the text of the request; a list gives several wordings of one question. By default the distribution's own request.
    - `form`: add the required form of the answer to each `request`, such as "Output only the number between two curly braces".
    - `wordings`: number of built-in wordings of the distribution's own request.
    - `held_out`: number of further wordings, or of requests, to hold out: measured, never trained. `seed` draws both.
    - `wrap`: the target as a template with its outcome as `%s`.
    - `spellings`: also accept other spellings of outcomes. A number below 100 may be in digits or words, a month or a weekday may be
      abbreviated, and every outcome may be without its wrap. The model may use any spelling of a target.
    - `response`, `eos`, `system`: the other fields of a prompt.
    - `from_file`: a file with one target per line, or a table. Its options are those of `diffuse init-prompt --from`.
    - `notice`: called with notices about the file or distribution. By default they are logged.
    - `options`: a distribution by its name, with its modifiers: `uniform=(1, 6)`, `binomial=(10, 0.2)`, `poisson=4, tail=1e-6`,
      `choices={"heads": 1, "tails": 1}`, `benford=True`. `choices` takes a mapping of text to weight, a pandas Series of
      weights by its index, or several equally likely texts: a list, a column, an array or a generator. A single text is read as on the
      command line.

    Raises `InputError`.

    >>> die = init_prompt("Toss a die.", uniform=(1, 6), form=True)
    >>> die.request
    "Toss a die. Output only the number between two curly braces, like this: {number}. Don't output code."
    >>> die.targets
    ('{1}', '{2}', '{3}', '{4}', '{5}', '{6}')
    """
    made = init_prompts(
        request, from_file=from_file, form=form, wrap=wrap, wordings=wordings, held_out=held_out, seed=seed, response=response, eos=eos,
        system=system, spellings=spellings, draws=draws, separator=separator, replacement=replacement, notice=notice, **options,
    )  # fmt: skip
    if len(made) > 1 or () not in made:
        raise InputError(f"{len(made)} groups give {len(made)} prompts. Call init_prompts, which returns all of them")
    return made[()]


def init_prompts(
    request: str | Sequence[str] | None = None, *, from_file: AnyPath | None = None, form: bool = False, wrap: str = BRACES,
    wordings: int | None = None, held_out: int = 0, seed: int = 0, response: str | Sequence[str] = "", eos: bool = True,
    system: str | None = None, spellings: bool = False, draws: int | None = None, separator: str = ", ", replacement: bool = True,
    notice: Notice | None = None, **options: Any,
) -> dict[tuple[str, ...], Prompt]:  # fmt: skip
    """Like `init_prompt`, for files with several groups: a mapping from the values of each group to its prompt.

    `group_by=["age", "sex"]` groups the rows by these columns; `shares_column` makes one group per row. `{age}` in
    `request` and `system` is replaced by the group's value. Without groups there is one prompt, with the key `()`.

    `train(train_prompts=…)` and `sample(prompts=…)` accept the mapping or its `.values()`.

    Raises `InputError`.
    """
    families, modifiers, reading = _sorted(options)
    wording = Wording(
        optional(texts, "request", request), text("wrap", wrap), texts("response", response), flag("eos", eos),
        optional(text, "system", system), flag("form", form), optional(whole, "wordings", wordings, 1), whole("held_out", held_out, 0),
        whole("seed", seed, 0), flag("spellings", spellings), optional(whole, "draws", draws, 2), text("separator", separator),
        flag("replacement", replacement),
    )  # fmt: skip
    optional(function, "notice", notice)
    with calling(notice) as say:
        source = None if from_file is None else _table(from_file)
        found = choose(families, modifiers, source, reading, worded=wordings is not None)
        filled = {key: fields_of(distribution, reading.group_by, key) for key, distribution in found.items()}
        made = {key: prompt_from(distribution, wording, filled[key]) for key, distribution in found.items()}
        require_different_requests(list(made.values()), filled, "group_by" if reading.group_by else "shares_column")
        doubts = wording_doubts(wording, next(iter(made.values())))
        for line in [*dict.fromkeys(_findings(found, filled, wording)), *(f"warning: {doubt}" for doubt in doubts)]:
            say(line)
    return made


def _table(file: Any) -> Path:
    """The path of a table; raises `InputError` for one in memory."""
    if is_frame(file):
        raise InputError(
            "from_file: is a table in memory. Write it to a file with to_csv and name the file, or pass a column to choices"
        )
    return path_of(file, "from_file")


def _findings(
    found: Mapping[tuple[str, ...], Distribution], filled: Mapping[tuple[str, ...], Mapping[str, str]], wording: Wording
) -> Iterator[str]:
    """Notices about the distributions, and the first warning."""
    for distribution in found.values():
        yield from distribution.notice.splitlines()
    doubts = [doubt for key, distribution in found.items() for doubt in form_doubts(distribution, wording, filled[key])]
    yield from (f"warning: {doubt}" for doubt in doubts[:1])


def _sorted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Reading]:
    """Split options into families, their modifiers and file options. Raises `InputError` for an unknown name."""
    families = {name.replace("-", "_"): family for name, family in FAMILIES.items()}
    modifiers = {modifier for family in FAMILIES.values() for modifier in family.modifiers}
    of_tables = {field.name for field in fields(Layout)}
    of_reading = {field.name for field in fields(Reading)} - {"layout", "grouping"}
    known = [*families, *sorted(modifiers | of_tables | of_reading)]
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"unknown option '{unknown[0]}'. {sentence(did_you_mean(unknown[0], known))}")
    given = {name: _of_kind(name, value) for name, value in options.items() if value is not None}
    layout = Layout(**{name: value for name, value in given.items() if name in of_tables})
    reading = {name: value for name, value in given.items() if name in of_reading}
    return (
        {name: _argument(name, families[name].arguments, value) for name, value in given.items() if name in families},
        {name: str(value) if name == "step" else value for name, value in given.items() if name in modifiers},
        Reading(**reading, layout=layout),
    )


def _of_kind(name: str, value: Any) -> Any:
    """Check the value of an option that is not a distribution; raises `InputError` for a wrong type or range."""
    if name in _WHOLE:
        return whole(name, value, _WHOLE[name])
    if name in _NUMBERS:
        return number(name, value, _NUMBERS[name])
    if name in _FLAGS:
        return flag(name, value)
    if name in _LISTS:
        return texts(name, value)
    if name.replace("_", "-") in FAMILIES:
        return value
    return str(number(name, value)) if name == "step" and not isinstance(value, str) else text(name, value)


def _argument(name: str, kinds: tuple[type, ...], value: Any) -> Any:
    """The value of a family's option as on the command line; raises `InputError` for a wrong type or number of values."""
    if not kinds:
        return flag(name, value)
    if name == "choices":
        return text(name, value) if isinstance(value, str) else _choices(value)
    example = FAMILIES[name.replace("_", "-")].example
    values = (value,) if len(kinds) == 1 else tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(values) != len(kinds):
        raise InputError(f"{name}: takes {len(kinds)} values, e.g. {example}")
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | Number | date):
            raise InputError(f"{name}: {shown(one)} is neither a number nor a text. Write it as in {example}")
    try:
        made = tuple(kind(one) for kind, one in zip(kinds, values, strict=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: {error}. Write it as in {example}") from error
    if any(kind is int and not isinstance(one, str) and whole != one for kind, whole, one in zip(kinds, made, values, strict=True)):
        raise InputError(f"{name}: {value!r} must have whole numbers, as in {example}")
    return made[0] if len(kinds) == 1 else made


def _choices(value: Any) -> str:
    """Texts, or texts with weights, as the JSON that the option takes; raises `InputError` for what is neither."""
    pairs, items = pairs_or_items("choices", value, "a mapping of text to weight, or a list of texts")
    listed: dict[str, Any] = {}
    for key, weight in pairs or [(item, None) for item in items]:
        name = _name(key)
        if name in listed:
            raise InputError(f"choices: {shown(name)} is there twice. Name each choice once")
        listed[name] = None if pairs is None else _weight(name, weight)
    if not listed:
        raise InputError("choices: is empty. Name at least one choice")
    return json.dumps(listed if pairs is not None else list(listed))


def _name(key: Any) -> str:
    """A choice as a text."""
    if is_missing(key):
        raise InputError(f"choices: {shown(key)} is no choice. Leave missing values out")
    plain = key.item() if is_numpy_scalar(key) else key
    if not isinstance(plain, str | Number | date | time):
        raise wrong("choices", "texts or numbers", plain)
    return text("choices", str(plain))


def _weight(name: str, weight: Any) -> Any:
    """A weight as a number; a text such as 50% is parsed by the option."""
    plain = weight.item() if is_numpy_scalar(weight) else weight
    if isinstance(plain, str):
        return plain
    try:
        return number(
            f"choices: the weight of {shown(name)}",
            float(str(plain)) if isinstance(plain, Number) and not isinstance(plain, Real) else plain,
            0,
        )
    except (TypeError, ValueError) as error:
        raise wrong(f"choices: the weight of {shown(name)}", "a number", weight) from error
