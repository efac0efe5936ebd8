"""`--sweep key=1,2,3`: settings with several values each, and every combination of them.

Knows YAML values, not what the keys mean.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from diffusecli.files.yaml_syntax import read_value
from diffusecli.prompts.config_overrides import Swept
from diffusecli.system.errors import InputError

_MOST_NAME = 40  # characters of a value in a folder name


@dataclass(frozen=True)
class Combination:
    """One value of each setting."""

    name: str  # for the folder of its run
    overrides: tuple[Swept, ...]


def combinations(sweeps: Sequence[str]) -> list[Combination]:
    """All combinations, in the order of the options and their values. Raises `InputError` for wrong options.

    >>> [one.name for one in combinations(["alg_config.n_iters=10,20", "seed=0,1"])]
    ['n_iters=10,seed=0', 'n_iters=10,seed=1', 'n_iters=20,seed=0', 'n_iters=20,seed=1']
    >>> combinations(["lora.target_modules=[q_proj],all"])[0].overrides
    ('lora.target_modules=["q_proj"]',)
    """
    settings = [_setting(option) for option in sweeps]
    keys = [key for key, _ in settings]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise InputError(f"--sweep {twice}: is given twice. List all its values in one option")
    last = [key.rpartition(".")[2] for key in keys]
    short = [key if last.count(name) > 1 else name for key, name in zip(keys, last, strict=True)]
    found = [
        Combination(
            ",".join(f"{name}={_in_a_name(value)}" for name, value in zip(short, values, strict=True)),
            tuple(Swept(f"{key}={json.dumps(value)}") for key, value in zip(keys, values, strict=True)),
        )
        for values in product(*(values for _, values in settings))
    ]
    names = [one.name for one in found]
    if same := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"--sweep: two combinations have the name {same}. Give each value once. Values that differ in signs only have the same name"
        )
    return found


def shared_and_own(runs: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings that all runs have with the same value, and those of each run that differ. Sections are compared setting by setting.

    >>> shared_and_own([{"seed": 1, "lora": {"r": 8, "bias": "none"}}, {"seed": 1, "lora": {"r": 4, "bias": "none"}}])
    ({'seed': 1, 'lora': {'bias': 'none'}}, [{'lora': {'r': 8}}, {'lora': {'r': 4}}])
    """
    shared: dict[str, Any] = {}
    own: list[dict[str, Any]] = [{} for _ in runs]
    for key in dict.fromkeys(key for run in runs for key in run):
        values = [run.get(key) for run in runs]
        if all(value == values[0] for value in values):
            shared[key] = values[0]
        elif all(isinstance(value, dict) for value in values):
            inner, others = shared_and_own([dict(value or {}) for value in values])
            shared |= {key: inner} if inner else {}
            for fields, other in zip(own, others, strict=True):
                fields[key] = other
        else:
            for fields, value in zip(own, values, strict=True):
                fields[key] = value
    return shared, own


def within(fields: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """The settings that are also in `others`.

    >>> within({"seed": 1, "lora": {"r": 8, "alpha": 16}, "model": "m"}, {"seed": 1, "lora": {"alpha": 16}})
    {'seed': 1, 'lora': {'alpha': 16}}
    """
    found = {key: within(value, others[key]) if isinstance(value, dict) and isinstance(others.get(key), dict) else value
             for key, value in fields.items() if key in others}  # fmt: skip
    return {key: value for key, value in found.items() if value != {} or fields[key] == {}}


def _setting(option: str) -> tuple[str, list[Any]]:
    """The key and the values of one option."""
    key, separator, text = option.partition("=")
    if key.strip() == "output_dir":
        raise InputError(f"--sweep {option}: the folders are named by the other settings. Use --set output_dir=…")
    if not separator or not key.strip() or not text.strip():
        raise InputError(f"--sweep {option}: write KEY=VALUE,VALUE, e.g. --sweep alg_config.learning_rate=1e-4,1e-3")
    try:
        values = read_value(f"[{text}]")
        json.dumps(values, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"--sweep {option}: the values cannot be read. Put quotes around each") from error
    if not values:
        raise InputError(f"--sweep {option}: has no values. Write KEY=VALUE,VALUE")
    return key.strip(), values


def _in_a_name(value: Any) -> str:
    """A value as part of a folder name. A long one is cut, and a hash distinguishes it from others with the same beginning.

    >>> _in_a_name([1, 2]), _in_a_name("a" * 50)
    ('-1-2', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-160b4e43')
    """
    text = value if isinstance(value, str) else json.dumps(value)
    name = re.sub(r"[^\w.+-]+", "-", text).rstrip("-") or "empty"
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
