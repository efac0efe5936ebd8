"""Draw answers to many prompts and write them with the metadata that evaluation needs.

Used by `diffuse train` (its samples at the end) and `diffuse sample`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusecli.files.locks import lock_beside, only_writer
from diffusecli.files.writing import mark_newest, write_json
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import tally
from diffusecli.prompts.prompt import Prompt, require_own_names
from diffusecli.prompts.wording_names import split_alias
from diffusecli.runs.environment import environment
from diffusecli.runs.journal import Journal
from diffusecli.runs.run_dir import prompts_as_json
from diffusecli.runs.sample_files import SAMPLE_ENDINGS, journal_path, meta_path, read_meta
from diffusecli.runs.samples import write_samples
from diffusecli.sampling.engine import Engine, JointEngine
from diffusecli.sampling.pooling import Pooled, Report
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InterruptedRun, many
from diffusecli.system.notices import Notice

_WORTH_A_WARNING = 0.01  # share of unfinished answers
_ANYWHERE = ("base_url", "device", "refused", "answered_as")
"""Settings that may differ when an interrupted sampling resumes, if the model is the same."""


@dataclass(frozen=True)
class Sampled:
    """The result: prompt alias -> counted answers; the path and the time."""

    counts: dict[str, Answers]
    path: Path
    seconds: float  # of sampling, without loading the model
    unfinished: int  # answers cut at the limit, without those that already match a target
    trainable: bool = False  # whether training the model would let it end its answers: it is untuned, and there are targets
    named: int | None = None  # replies that name an option, if a prompt-only method asked for them

    @property
    def remark(self) -> str:
        """The number of unfinished answers, and the fix; empty if there are none. Of a prompt-only method, always how many replies name an option."""
        total = sum(counts.total() for counts in self.counts.values())
        if self.named is not None:
            found = f"{self.named} of {many(total, 'reply', 'replies')} {'names' if self.named == 1 else 'name'} an option"
            cut = "is" if self.unfinished == 1 else "are"
            return found + (
                f"; {self.unfinished} {cut} cut at the token limit. A larger --max-new-tokens helps if the model still comes to an answer"
                if self.unfinished
                else ""
            )
        if self.unfinished < _WORTH_A_WARNING * total or not self.unfinished:
            return ""
        remedy = "Train first, or sample" if self.trainable else "Sample"
        return (
            f"{self.unfinished} of {many(total, 'sample')} {'is' if self.unfinished == 1 else 'are'} unfinished: cut at the token "
            f"limit. {remedy} with a larger --max-new-tokens"
        )


def generate(
    engine: Engine, prompts: Sequence[Prompt], settings: SamplingSettings, *, mode: str, adapter_sha256: str | None, adapter: str = "",
    path: Path, form: str, report: Report, notice: Notice, write: bool = True, resumable: bool = True,
) -> Sampled:  # fmt: skip
    """Sample every prompt and write the samples to `path`, and settings, prompts and hashes to a file beside it.

    The answers to a prompt with several wordings are distributed evenly over them. For all answers from each wording, pass the wordings as
    prompts. Answers from an interrupted sampling are reused. If several processes draw the same, only one writes.
    Raises `InterruptedRun` on Ctrl-C (arrived answers are kept), and `InputError` when two prompts have the same alias.
    """
    require_own_names(prompts)
    about = {
        "mode": mode,
        "adapter_sha256": adapter_sha256,
        **({"adapter": adapter} if adapter else {}),
        **engine.about,
        "settings": asdict(settings),
    }
    kept_in = journal_path(path) if write and resumable else None
    with only_writer(path, lock_beside(path)) if write else nullcontext():
        named_otherwise = (*_ANYWHERE, "model") if "model_revision" in about else _ANYWHERE
        journal = Journal(kept_in, {key: value for key, value in about.items() if key not in named_otherwise})
        pools = [Pooled(prompt, settings.n_generations, journal, report) for prompt in prompts]
        if journal.aside:
            notice(
                f"{kept_in}: belongs to a sampling with different settings. Renamed to {journal.aside.name}. Starting from the first answer"
            )
        if write:
            for lost in _replaced(path, prompts, settings.n_generations):
                notice(f"{path}: overwriting its samples of {lost}")
        try:
            limits, seconds = _draw_all(engine, pools, journal.kept, notice)
        except BaseException:
            if journal.empty:
                journal.remove()
            raise
        drawn = {pool.prompt.alias: pool.answers for pool in pools}
        if write:
            records = {prompt.alias: prompt for prompt in prompts if prompt.record is not None}
            write_samples(path, drawn, form, settings.seed, records)
            mark_newest(path, (other for other in path.parent.glob("gen*") if other.suffix in SAMPLE_ENDINGS))
            refused = {"refused": journal.refused} if journal.refused else {}
            fed = sum(pool.tokens for pool in pools)
            tail: dict[str, Any] = {
                "seconds": round(seconds, 3), "tokens_fed": fed or None, "prompts": prompts_as_json(prompts),
                **_wordings(pools), "limits": {alias: limit for alias, limit in limits.items() if limit != settings.max_new_tokens},
                "unfinished": {alias: counts.unfinished for alias, counts in drawn.items() if counts.unfinished},
            }  # fmt: skip
            write_json(
                meta_path(path), {**about, **engine.about, **refused, "file": path.name, "format": form, **tail, **environment()}
            )
        journal.remove()
    tallies = [tally(prompt, drawn[prompt.alias]) for prompt in prompts]
    named = sum(each.on_target for each in tallies) if "ask" in about else None
    trainable = mode == "untuned" and all(prompt.targets for prompt in prompts)
    return Sampled(drawn, path, seconds, sum(each.unfinished.total() for each in tallies), trainable, named)


def _replaced(path: Path, prompts: Sequence[Prompt], n: int) -> Iterator[str]:
    """Earlier samples in the same file that this sampling does not draw again, as text."""
    meta = read_meta(path) if path.is_file() else {}
    earlier, now = meta.get("prompts", {}), prompts_as_json(prompts)
    settings = meta.get("settings")
    before = settings.get("n_generations") if isinstance(settings, dict) else None
    if isinstance(before, int) and before > n and any(alias in now for alias in earlier):
        yield f"an earlier sampling ({before} per prompt, now {n})"
    whole = {prompt.whole for prompt in prompts}
    if gone := [alias for alias in earlier if alias not in now]:
        others = [alias for alias in gone if split_alias(alias)[0] not in whole]
        yield f"{', '.join(gone)}, which {'is' if len(gone) == 1 else 'are'} {'not sampled now' if others else 'now sampled in other wordings'}"
    if changed := [alias for alias in earlier if alias in now and earlier[alias] != now[alias]]:
        yield f"{', '.join(changed)} from before the {'prompt was' if len(changed) == 1 else 'prompts were'} changed"


def _draw_all(engine: Engine, pools: Sequence[Pooled], kept: bool, notice: Notice) -> tuple[dict[str, int], float]:
    """Draw what is missing. Returns the token limits of the prompts and the seconds. `kept`: the journal keeps answers on interruption."""
    started = time.perf_counter()
    try:
        wanted = [one for pool in pools if not _there(pool, notice) for one in pool.missing(engine)]
        if isinstance(engine, JointEngine):
            engine.draw_all(wanted)
        else:
            for one in wanted:
                engine.draw(one)
    except KeyboardInterrupt as error:
        if not kept:
            raise InterruptedRun("interrupted. No samples are kept. Run the same command to draw them again") from error
        there = sum(pool.answers.total() for pool in pools)
        if not there:
            raise InterruptedRun("interrupted before the first sample. Run the same command to draw them") from error
        words = f"{there} of {many(sum(pool.n for pool in pools), 'sample')} are kept"
        raise InterruptedRun(f"interrupted: {words}. Run the same command to resume", words) from error
    return {pool.prompt.alias: pool.limit(engine) for pool in pools}, time.perf_counter() - started


def _there(pool: Pooled, notice: Notice) -> bool:
    """Whether an earlier sampling has drawn all answers to a prompt. Reports how many exist."""
    if have := pool.answers.total():
        notice(f"{pool.prompt.alias}: {have} of {many(pool.n, 'sample')} exist from an earlier sampling")
    if pool.complete:
        pool.report_end()
    return pool.complete


def _wordings(pools: Sequence[Pooled]) -> dict[str, Any]:
    """How prompts with several wordings were sampled; empty if each has one request."""
    alone = any(pool.prompt.whole != pool.prompt.alias for pool in pools)
    pooled = {pool.prompt.alias: pool.wordings for pool in pools if len(pool.prompt.requests) > 1}
    return {"per_wording": alone, "wordings": pooled} if alone or pooled else {}
