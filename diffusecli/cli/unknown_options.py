"""Unknown options, values that are no numbers, and loose words: what was given, and what was probably meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from diffusecli.system.errors import nearest

_NEAR = 0.75
"""How similar a suggestion must be, from 0 to 1."""


def unknown_option(error: Any, arguments: Sequence[str]) -> str:
    """The message for an unknown option of a command. `arguments` are those of the command line."""
    name, context = str(error.option_name), error.ctx
    known = [
        option for param in context.command.params for option in (*param.opts, *param.secondary_opts) if option.startswith("--")
    ]
    begun = next((option for option in known if option.startswith(name)), None)
    if (near := begun or nearest(name, known, _NEAR)) is not None:
        return f"No such option: {name}. Did you mean {near}?"
    if name == "--config" and context.info_name == "train":
        value = _value(name, arguments)
        return f"No such option: {name}. Name the config without an option: diffuse train {shlex.quote(value) if value != '…' else 'CONFIG'}."
    setting = _setting(name.lstrip("-").replace("-", "_")) if context.info_name == "train" else None
    if setting is None:
        return f"No such option: {name}."
    return f"No such option: {name}. Settings of a config have --set, e.g. --set {setting}={_value(name, arguments)}."


def wrong_number(message: str, arguments: Sequence[str]) -> str:
    """The parser's message about a value that is no number, with the value. Empty for other messages.

    >>> parser = "Invalid value for '--binomial': must be a valid integer, unable to parse string as an integer"
    >>> wrong_number(parser, ["--binomial", "ten", "0.2"]), wrong_number(parser, ["--binomial=1.5"])
    ('--binomial ten: must be a whole number', '--binomial 1.5: must be a whole number')
    >>> both = "Invalid value for '-n' / '--n-generations': must be a valid integer, unable to parse string as an integer"
    >>> wrong_number(both, ["-n", "ten"]), wrong_number(both, ["--n-generations", "ten"])
    ('-n (--n-generations) ten: must be a whole number', '--n-generations (-n) ten: must be a whole number')
    """
    if (found := _NO_NUMBER.search(message)) is None:
        return ""
    names, (whole, kind) = re.findall(r"'(--?[\w-]+)'", found[1]), (("whole ", int) if found[2] == "an integer" else ("", float))
    values = [(name, value) for name in names for value in _values(name, arguments)]
    typed, wrong = next((given for given in values if not _is(kind, given[1])), (names[-1], ""))
    others = "".join(f" ({name})" for name in names if name != typed)
    return f"{typed}{others}{f' {wrong}' if wrong else ''}: must be a {whole}number"


_NO_NUMBER = re.compile(r"((?:'--?[\w-]+'(?: / )?)+).*unable to parse string as (a number|an integer)")


def out_of_range(message: str, arguments: Sequence[str]) -> str:
    """The parser's message about a number beyond its limits, with the number. Empty for other messages.

    >>> out_of_range("Invalid value for '--more': must be greater than or equal to 1", ["--more", "0"])
    '--more 0: must be greater than or equal to 1'
    >>> out_of_range("Invalid value for '--more': must be greater than or equal to 1", ["--more", "5", "--more", "-1.5"])
    '--more -1.5: must be greater than or equal to 1'
    """
    if (found := _OUT_OF_RANGE.fullmatch(message)) is None:
        return ""
    names = re.findall(r"'(--?[\w-]+)'", found[1])
    above, limit = found[3] == "greater", float(found[4])
    given = ((name, value) for name in names for value in _values(name, arguments) if _is(float, value))
    wrong = ((name, value) for name, value in given if (float(value) <= limit if above else float(value) >= limit))
    name, value = next(wrong, (names[-1], ""))
    return f"{name}{f' {value}' if value else ''}: {found[2]}"


_OUT_OF_RANGE = re.compile(
    r"Invalid value for ((?:'--?[\w-]+'(?: / )?)+): (must be (greater|less) than (?:or equal to )?(-?[\d.]*\d))\.?"
)


def loose_words(message: str, arguments: Sequence[str], texts: Collection[str]) -> str:
    """The parser's message about arguments that no option takes, with the option before them and how to write its value.

    `texts` are the options that take one text or path. Empty for other messages.

    >>> texts = ["--choices", "--request", "--prompt"]
    >>> print(loose_words("Got unexpected extra argument(s) (b=0.2)", ["--choices", "a=0.5", "b=0.2"], texts))
    b=0.2: belongs to no option. If it belongs to --choices, separate with commas: --choices a=0.5,b=0.2
    >>> print(loose_words("Got unexpected extra argument (me)", ["--request", "Amuse", "me", "--form"], texts))
    me: belongs to no option. If it belongs to --request, put quotes around the whole value: --request 'Amuse me'
    >>> print(loose_words("Got unexpected extra argument (b.json)", ["--prompt", "a.json", "b.json"], texts))
    b.json: belongs to no option. If it belongs to --prompt, repeat the option: --prompt a.json --prompt b.json
    >>> print(loose_words("Got unexpected extra argument (b)", ["--request", "Amuse me", "-n", "5", "b"], texts))
    b: belongs to no option. Remove it
    """
    if (found := _LOOSE.search(message)) is None:
        return ""
    first = found[1].split(" ")[0]
    place = arguments.index(first) if first in arguments else 0
    start = next((index for index in range(place - 1, -1, -1) if arguments[index].startswith("-")), None)
    if start is None or arguments[start].split("=", 1)[0] not in texts:
        return f"{found[1]}: belongs to no option. Remove it"
    option, *values = [*arguments[start].split("=", 1), *takewhile(lambda word: not word.startswith("-"), arguments[start + 1 :])]
    if option in _LISTS:
        whole = shlex.quote(",".join(value.strip(",") for value in values))
        return f"{found[1]}: belongs to no option. If it belongs to {option}, separate with commas: {option} {whole}"
    if option in _PATHS:
        return (
            f"{found[1]}: belongs to no option. If it belongs to {option}, repeat the option: {option} {f' {option} '.join(values)}"
        )
    return (
        f"{found[1]}: belongs to no option. If it belongs to {option}, put quotes around the whole value: "
        f"{option} {shlex.quote(' '.join(values))}"
    )


def text_options(command: Any) -> list[str]:
    """The options of a command that take one text or path. Flags and numbers take no more words."""
    kinds = {param: getattr(param, "type_descriptor", None) for param in command.params if param.nargs == 1}
    texts = (param for param, kind in kinds.items() if getattr(kind, "annotation", None) in (str, Path, list[str], list[Path]))
    return [option for param in texts for option in param.opts]


_LOOSE = re.compile(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)
_LISTS = ("--choices", "--group-by", "--given", "--independent", "--alpha-within", "--sweep")
"""Options whose value is a list with commas."""
_PATHS = ("--prompt", "--prompts", "--requests")
"""Options that take one path and may be repeated."""


def _values(name: str, arguments: Sequence[str]) -> Iterator[str]:
    """What follows an option, up to the next option."""
    for place, given in enumerate(arguments):
        if given.startswith(f"{name}=") or (len(name) == 2 and given.startswith(name) and given != name):
            yield given.removeprefix(name).removeprefix("=")
        elif given == name:
            yield from takewhile(lambda value: not value.startswith("--"), arguments[place + 1 :])


def _is(kind: type[int] | type[float], text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _value(name: str, arguments: Sequence[str]) -> str:
    """The value that follows the option on the command line."""
    for given, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if given.startswith(f"{name}="):
            return given.partition("=")[2]
        if given == name and after and not after.startswith("-"):
            return after
    return "…"


def _setting(word: str) -> str | None:
    """The setting with this name, or with the most similar one.

    >>> _setting("iters"), _setting("learning_rate"), _setting("alg_config.gama"), _setting("colour")
    ('alg_config.n_iters', 'alg_config.learning_rate', 'alg_config.gamma', None)
    """
    from diffusecli.prompts.config import Config

    keys = list(_keys(Config, ""))
    last = {key.rpartition(".")[2]: key for key in reversed(keys)}
    parts = [key for key in keys if key.endswith(f"_{word}")]
    near = nearest(word, [*last, *keys], _NEAR)
    found = word if word in keys else last.get(word) or next(iter(parts), None) or near
    return last.get(found, found) if found is not None else None


def _keys(model: Any, before: str) -> Iterator[str]:
    """The keys of a model and of the groups in it, with dots."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}"
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(kind, "model_fields"):
                yield from _keys(kind, f"{before}{name}.")
