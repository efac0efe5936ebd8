"""Draw answers to many prompts and write them with all that is needed to judge them later.

Shared by `diffuse train` (its samples at the end) and `diffuse sample`. Knows engines, the journal and
the files; what an engine does is its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusecli.builtin import Notice
from diffusecli.engines import Engine
from diffusecli.errors import InterruptedRun, many
from diffusecli.journal import Journal
from diffusecli.locks import lock_beside, only_writer
from diffusecli.prompt import Prompt
from diffusecli.runs import (
    SAMPLE_ENDINGS,
    environment,
    journal_path,
    mark_newest,
    meta_path,
    prompts_as_json,
    read_meta,
    write_json,
)
from diffusecli.samples import write_samples
from diffusecli.sampling import SamplingSettings, Standing

_ANYWHERE = ("base_url", "device")
"""Where answers come from, if the model is the same: an interrupted sampling may go on at another place."""

Report = Callable[[str, Standing], None]
"""Takes the alias of the prompt under way and how far it is."""


@dataclass(frozen=True)
class Sampled:
    """What was drawn: prompt alias -> answers, counted; where it was written, how long it took."""

    counts: dict[str, Counter[str]]
    path: Path
    seconds: float  # of sampling alone, the model already loaded


def generate(
    engine: Engine, prompts: Sequence[Prompt], settings: SamplingSettings, *, mode: str, adapter_sha256: str | None,
    path: Path, form: str, report: Report, notice: Notice, write: bool = True, resumable: bool = True,
) -> Sampled:  # fmt: skip
    """Sample every prompt and write it to `path`, its settings, prompts and hashes beside it.

    What an earlier start of the same sampling left is counted. Of several processes that draw the same, one
    writes. Raises `InterruptedRun` on Ctrl-C, what has arrived kept.
    """
    about = {"mode": mode, "adapter_sha256": adapter_sha256, **engine.about, "settings": asdict(settings)}
    kept_in = journal_path(path) if write and resumable else None
    with only_writer(path, lock_beside(path)) if write else nullcontext():
        journal = Journal(kept_in, {key: value for key, value in about.items() if key not in _ANYWHERE})
        if journal.aside:
            notice(f"{kept_in}: is of another sampling; it is now {journal.aside.name}, and this one begins anew")
        if write and (gone := _replaced(path, prompts)):
            notice(f"{path}: will lose its samples of {', '.join(gone)}, which {'is' if len(gone) == 1 else 'are'} not sampled now")
        drawn, seconds = _draw_all(engine, prompts, settings, journal, report, notice)
        if write:
            write_samples(path, drawn, form, settings.seed)
            mark_newest(path, (path.with_suffix(ending) for ending in SAMPLE_ENDINGS))
            fed = sum(journal.tokens[prompt.alias] for prompt in prompts)
            tail: dict[str, Any] = {"seconds": round(seconds, 3), "tokens_fed": fed, "prompts": prompts_as_json(prompts)}
            write_json(meta_path(path), {**about, "file": path.name, "format": form, **tail, **environment()})
        journal.remove()
    return Sampled(drawn, path, seconds)


def _replaced(path: Path, prompts: Sequence[Prompt]) -> list[str]:
    """Prompts that an earlier sampling left in the same file and that this one does not draw."""
    earlier = read_meta(path).get("prompts", {}) if path.is_file() else {}
    return [alias for alias in earlier if alias not in {prompt.alias for prompt in prompts}]


def _draw_all(
    engine: Engine, prompts: Sequence[Prompt], settings: SamplingSettings, journal: Journal, report: Report, notice: Notice
) -> tuple[dict[str, Counter[str]], float]:
    """Every prompt's answers, and the seconds they took."""
    drawn: dict[str, Counter[str]] = {}
    started = time.perf_counter()
    try:
        for prompt in prompts:
            drawn[prompt.alias] = _draw(engine, prompt, settings, journal, report, notice)
    except KeyboardInterrupt as error:
        if not journal.kept:
            raise InterruptedRun("interrupted, no samples are kept; the same command draws them again") from error
        kept = sum(journal.of(prompt).total() for prompt in prompts)
        wanted = settings.n_generations * len(prompts)
        raise InterruptedRun(
            f"interrupted, {kept} of {many(wanted, 'sample')} are kept; the same command goes on from there"
        ) from error
    return drawn, time.perf_counter() - started


def _draw(
    engine: Engine, prompt: Prompt, settings: SamplingSettings, journal: Journal, report: Report, notice: Notice
) -> Counter[str]:
    """All answers to one prompt, those of an earlier start included."""
    have = journal.of(prompt)
    if have:
        notice(f"{prompt.alias}: {have.total()} of {many(settings.n_generations, 'sample')} are there from an earlier start")
    if have.total() < settings.n_generations:
        engine.draw(prompt, have, lambda counts, tokens: journal.add(prompt, counts, tokens), lambda now: report(prompt.alias, now))
    counts = journal.of(prompt)
    report(prompt.alias, Standing(counts, settings.n_generations, 0, journal.tokens[prompt.alias]))
    return counts
