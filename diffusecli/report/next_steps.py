"""What to do after an evaluation: the same lines on the terminal and in the HTML report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote

from diffusecli.evaluation.evaluation import Evaluated, Evaluation, by_prompt
from diffusecli.evaluation.groups import tuned as tuned_rows
from diffusecli.evaluation.metrics import Figures
from diffusecli.evaluation.names import labels, prompt_names
from diffusecli.evaluation.run_records import read_sample_meta
from diffusecli.evaluation.sample_set import RunFacts
from diffusecli.evaluation.verdicts import CLOSE, TOO_COARSE
from diffusecli.files.paths import exists
from diffusecli.prompts.matching import Matching, beginnings
from diffusecli.report.wording import mark_of, phrase_of
from diffusecli.runs.next_commands import Next, first_training, if_readable, in_progress, sampling, training
from diffusecli.system.notices import some_of

_MANY_CUT = 0.05  # share of cut answers that could have become valid, which calls for longer ones
_MOST_FURTHER = 2  # runs that are all named
_MOST_MORE = 100  # times as many answers
_ENOUGH = 1000  # answers, as after a training
_ENOUGH_OFF = 10  # answers off target, from which they may belong to another prompt
_MOST_COMPARED = 10_000  # different texts off target that are compared with the words of targets
_MARGIN = 1.5  # the square root is only roughly right
_STEP = 1.1  # from one number of answers to the next that is considered


def next_steps(found: Evaluation) -> Iterator[str]:
    """What to do if a model has no samples, is not trained or does not follow its targets, many answers were cut, or the verdict is open.

    A command is only named if it is accepted in the state of the run.
    """
    runs = {facts.run: facts for facts in found.runs}
    tuned = [row for row in found.rows if row.mode == "lora" and row.tally.n]
    if busy := next((facts for facts in found.runs if in_progress(facts.folder)), None):
        yield f"wait until `diffuse train` is done: it is still {in_progress(busy.folder)} ({busy.run})"
        return
    unsampled = next((row for row in found.rows if row.mode == "lora" and not row.tally.n and row.verdict == "no samples"), None)
    if unsampled is not None and not tuned and (own := runs.get(unsampled.run)) is not None:
        yield from _said(if_readable(lambda: sampling(own.folder, unsampled.prompt.alias)))
    cut = next((row for row in tuned if _too_short(row, found.matching) > _MANY_CUT), None)
    if cut is not None:
        limit = cut.settings.get("max_new_tokens")
        now = f" (now {limit})" if limit else ""
        yield f"many answers were cut: sample with a larger `--max-new-tokens`{now}"
    bad = [row for row in tuned if mark_of(row.verdict)[1] == "bad" and row.run in runs]
    yield from _further(bad, runs)
    undecided = [row for row in tuned_rows(found.rows) if mark_of(row.verdict)[0] == "?" and row.tally.n]
    unsure = next((row for row in undecided if row.mode == "lora" and row.run in runs), None)
    if unsure is not None and not any(row.run == unsure.run for row in bad):
        yield from _decided(unsure, runs[unsure.run])
    elif not bad:
        yield from _more_answers(undecided, found.rows)
    if len(by_prompt(found.rows)) == 1:
        yield from _of_another_prompt(found.rows, runs)
    if all(row.mode == "untuned" for row in found.rows):
        yield from _untrained(found.rows[0], runs.get(found.rows[0].run))


def _too_short(row: Evaluated, matching: Matching) -> float:
    """The share of answers that were cut and could have become valid: a longer answer helps no other."""
    if not row.tally.unfinished:
        return 0.0
    if row.diversity is not None:
        return row.tally.unfinished_share
    return beginnings(row.prompt, matching, row.tally.unfinished) / row.tally.n


def _further(bad: Sequence[Evaluated], runs: Mapping[str, RunFacts]) -> Iterator[str]:
    """Train the runs further that do not follow their targets; of more than two, the one with the largest distance."""
    worst_first = list(dict.fromkeys(row.run for row in sorted(bad, key=_distance, reverse=True)))
    for run in worst_first if len(worst_first) <= _MOST_FURTHER else worst_first[:1]:
        step = if_readable(partial(training, runs[run].folder, further=True))
        of = f" (the worst run; then {some_of(worst_first[1:])})" if len(worst_first) > _MOST_FURTHER else ""
        yield from _said(step._replace(purpose=step.purpose + of) if step is not None else None)


def _more_answers(undecided: Sequence[Evaluated], every: Sequence[Evaluated]) -> Iterator[str]:
    """How many answers decide: of one prompt and sampler, named among others; of several prompts, which ones need more."""
    names, samplers = prompt_names(row.prompt for row in every), labels(every)
    prompts = sorted({names[row.prompt.key] for row in undecided})
    if len(prompts) > 1:
        yield f"collect more answers to the {len(prompts)} undecided prompts ({some_of(prompts)})"
        return
    for row in undecided:
        of = f" of {samplers[row.run, row.mode]}" if len(samplers) > 1 else ""
        to = f" to {prompts[0]}" if len(names) > 1 else ""
        yield f"collect more answers{of}{to}: {about(answers_needed(row))} may decide (now {row.tally.n})"


def _of_another_prompt(rows: Sequence[Evaluated], runs: Mapping[str, RunFacts]) -> Iterator[str]:
    """Answers from a file which contain no word of any target probably belong to another prompt."""
    for row in rows:
        off = row.tally.off_target
        if row.run in runs or row.figures is None or row.tally.on_target or row.tally.unfinished or not off.total() >= _ENOUGH_OFF:
            continue
        targets = {word for text in row.prompt.every_spelling for word in _words(text)}
        if targets and len(off) <= _MOST_COMPARED and not any(targets & set(_words(text)) for text in off):
            yield f"check the prompt: no answer of {labels(rows)[row.run, row.mode]} contains a word or number of its targets"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def answers_needed(row: Evaluated) -> int | None:
    """About how many answers decide an open verdict, if the true distance is as estimated; None for more than `_MOST_MORE` times as many.

    The detectable TVD falls with the square root of the number of answers.
    """
    f = row.figures
    if f is None:
        return None
    if phrase_of(row.verdict).startswith("too few"):
        factor = (f.detectable_tvd / TOO_COARSE) ** 2 if f.detectable_tvd < 1 else math.inf
        return math.ceil(_MARGIN * f.n * factor) if 1 < factor <= _MOST_MORE else None
    numbers = (math.ceil(f.n * _STEP**k) for k in range(1, math.ceil(math.log(_MOST_MORE, _STEP)) + 1))
    return next((math.ceil(_MARGIN * n) for n in numbers if _decides(f, n)), None)


def _decides(f: Figures, n: int) -> bool:
    """Whether the bounds of the TVD are expected on one side of what is close with n answers.

    The true TVD t is estimated by taking the sampling noise from the TVD in squares, as for independent errors. With n answers the TVD is then about
    sqrt(t^2 + floor^2), and the noise, the floor and the widths of intervals fall with the square root of n.
    """
    off, r = 1 - f.valid, math.sqrt(f.n / n)
    true = max(math.sqrt(max(0.0, f.tvd**2 - f.tvd_floor**2)), off)
    tvd = math.hypot(true, f.tvd_floor * r)
    noise = max(f.tvd_floor_95, f.tvd - f.tvd_low if f.tvd_low > 0 else 0.0)
    low = max(tvd - noise * r, off - (f.valid_high - f.valid) * r)
    return low > CLOSE or true + (f.tvd_high - true) * r <= CLOSE


def about(answers: int | None) -> str:
    """A number of answers, rounded up to one digit.

    >>> about(4321), about(12), about(None)
    ('about 5000', 'about 20', 'many more')
    """
    if answers is None:
        return "many more"
    unit = 10 ** (len(str(answers)) - 1)
    return f"about {-(-answers // unit) * unit}"


def _decided(row: Evaluated, run: RunFacts) -> Iterator[str]:
    """What decides an open verdict: the exact distance; if it is known and too large, more training, and otherwise more answers."""
    if row.exact is None or math.isnan(row.exact.tvd):
        if run.folder.has_adapter and run.folder.config.is_file():
            yield f"compute the exact distance: `diffuse evaluate {quote(str(run.folder.path))} --exact`"
    elif phrase_of(row.verdict).startswith("too few"):
        if step := if_readable(lambda: sampling(run.folder, row.prompt.alias)):
            yield f"draw more samples: `{step.command} -n {max(_ENOUGH, answers_needed(row) or 0)}`"
    else:
        yield from _said(if_readable(lambda: training(run.folder, further=True)))


def _distance(row: Evaluated) -> float:
    return row.figures.tvd if row.figures is not None else 0.0


def _untrained(row: Evaluated, run: RunFacts | None) -> Iterator[str]:
    """Train the model whose samples these are."""
    if run is not None:
        if not run.folder.has_adapter:
            yield from _said(if_readable(lambda: training(run.folder)))
    elif command := _of_file(Path(row.run), row.prompt.alias) if row.prompt.targets and not row.served else "":
        yield f"train: `{command}`"


def _of_file(samples: Path, prompt: str) -> str:
    """The command that trains the model of a sample file on a prompt; empty if the file does not record its model."""
    model = read_sample_meta(samples).model if exists(samples) else None
    return first_training(model, prompt) if model is not None else ""


def _said(step: Next | None) -> Iterator[str]:
    if step is not None:
        yield f"{step.purpose}: `{step.command}`"
