"""Short, unique names of samplers and prompts for tables and charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from diffusecli.evaluation.sample_set import SERVED
from diffusecli.prompts.groups import shared_folders
from diffusecli.prompts.wording_names import readable
from diffusecli.runs.sample_files import ASKED, MODES

if TYPE_CHECKING:
    from diffusecli.evaluation.evaluation import Evaluated
    from diffusecli.prompts.prompt import Prompt


_TUNED = ("lora", *(name for name in ASKED if name.startswith("lora ")))
"""Modes of tuned models."""


def short_names(aliases: Sequence[str]) -> dict[str, str]:
    """Aliases without their common folders and, unless two would become equal, without `.json` and with wordings separated.

    >>> short_names(["prompts/a/x.json", "prompts/b/x.json"]), short_names(["x", "x.json"]), short_names(["x.json#2"])
    ({'prompts/a/x.json': 'a/x', 'prompts/b/x.json': 'b/x'}, {'x': 'x', 'x.json': 'x.json'}, {'x.json#2': 'x #2'})
    """
    parts = [alias.split("/") for alias in dict.fromkeys(aliases)]
    shared = shared_folders(aliases)
    names = {"/".join(path): "/".join(path[shared:]) for path in parts}
    bare = Counter(map(readable, names.values()))
    return {alias: short if bare[short := readable(name)] == 1 else name for alias, name in names.items()}


def marks(prompts: Iterable[Prompt]) -> dict[tuple[str, str], str]:
    """By `Prompt.key`: a suffix with the first digits of the digest for names that several prompts share; otherwise empty."""
    keys = dict.fromkeys(prompt.key for prompt in prompts)
    shared = Counter(alias for alias, _ in keys)
    return {(alias, digest): f" ({digest[:8]})" if shared[alias] > 1 else "" for alias, digest in keys}


def prompt_names(prompts: Iterable[Prompt]) -> dict[tuple[str, str], str]:
    """By `Prompt.key`: short, unique names; a file may have been edited between two runs or commands."""
    marked = marks(prompts)
    short = short_names([alias for alias, _ in marked])
    return {key: short[key[0]] + mark for key, mark in marked.items()}


def labels(rows: Iterable[Evaluated]) -> dict[tuple[str, str], str]:
    """Names of samplers: tuned, untuned or a method; with several runs in brackets after the run's short name. For a file its name.

    A model that only a server knows is named as the server does.
    """
    kinds, alone = dict[tuple[str, str], str](), set[tuple[str, str]]()
    for row in rows:
        pair = row.run, row.mode
        kinds.setdefault(pair, _served_kind(row) if row.mode == SERVED else shown(row.mode))
        alone |= {pair} if row.mode == SERVED and row.run == row.served else set()  # it has no samples
    names = short_names([run for run, mode in kinds])
    known = (*MODES, *ASKED, SERVED)

    def label(run: str, mode: str) -> str:
        kind = kinds[run, mode]
        if len(names) == 1 or (run, mode) in alone:
            return kind
        return names[run] if mode not in known else f"{names[run]} ({kind})"

    return {pair: label(*pair) for pair in kinds}


def _served_kind(row: Evaluated) -> str:
    """The name of a served model, first the one in the server's responses."""
    answered = row.served_as.rpartition("/")[2] if row.served_as.startswith("/") else row.served_as  # llama.cpp names the file
    return f"model {answered} (requested as {row.served})" if answered else f"model {row.served}"


def with_sampler(what: str, sampler: str) -> str:
    """A prompt or group and the sampler of a figure, without brackets in brackets.

    >>> with_sampler("p.json", "tuned"), with_sampler("p.json", "r2 (tuned)")
    ('p.json (tuned)', 'p.json, r2 (tuned)')
    """
    return f"{what}, {sampler}" if sampler.endswith(")") else f"{what} ({sampler})"


def shown(mode: str) -> str:
    """The word that reports show for a mode. Files and options name a tuned model by its adapter.

    >>> shown("lora"), shown("lora ask direct"), shown("untuned"), shown("lora-file")
    ('tuned', 'tuned ask direct', 'untuned', 'lora-file')
    """
    return f"tuned{mode.removeprefix('lora')}" if mode in _TUNED else mode
