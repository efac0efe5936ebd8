"""Rich tables of prompts, answers, tokens and plans for `init-prompt`, `validate`, `sample` and `train`.

Readable at 80 columns, without colour and in a pipe.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence, Set
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.names import short_names
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.groups import MOST_NAMED, folders
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.parts import Sentence, bar, beginning, label, labels, nats, new_table, percent, tenths, thousandths
from diffusecli.report.target_names import target_names
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled

if TYPE_CHECKING:
    from diffusecli.models.token_view import TokenView
    from diffusecli.training.budget import Plan
    from diffusecli.training.questions import Exact

_MOST_ROWS = 24
_WIDEST = 32  # characters of a target
_CUT = " (unfinished)"
_MEDIANS = "Medians over the prompts of each folder."
_PLAN_LEGEND = (
    "entropy: of the target weights, in nats.",
    "tokens: what the model reads in each iteration to score all targets of the prompt, with shared beginnings read once.",
    "as rows: the same if each target were a row of its own; for comparison.",
)
_Kind = TypeVar("_Kind")


def distribution_preview(prompt: Prompt) -> RenderableType:
    """The target distribution of one prompt as bars."""
    of_each = f" of each of {prompt.draws.n} draws" if prompt.draws is not None else ""
    heading, names = target_names(prompt)
    rows = new_table(beginning(f"{heading}{of_each}", _WIDEST), ("weight", "right"), Text(""))
    weights = prompt.probabilities
    top = max(weights, default=1)
    shown = sorted(sorted(range(len(weights)), key=lambda i: -weights[i])[:_MOST_ROWS])
    for index, name in zip(shown, labels([names[index] for index in shown], _WIDEST), strict=True):
        rows.add_row(name, percent(weights[index]), bar(weights[index] / top))
    hidden, spellings = len(weights) - len(shown), len(prompt.every_spelling)
    notes = [f"{many(hidden, 'more target')}"] if hidden else []
    notes += [f"{spellings} spellings in total; each target shows its first one"] if spellings > len(weights) else []
    return Group(rows, Text(f"({'; '.join(notes)})" if notes else ""))


def answers(counts: Answers, most: int = _MOST_ROWS, wanted: int = 0) -> RenderableType:
    """The most frequent answers with their shares as bars; answers cut at the limit are marked and counted separately.

    During sampling `wanted` is the total requested. Shares refer to it, otherwise the first answer would show 100 %.
    """
    rows = new_table(Text("answer"), ("count", "right"), ("share", "right"), Text(""))
    total = max(wanted, counts.total(), 1)
    found = [*((count, text, "") for text, count in counts.finished.items()),
             *((count, text, _CUT) for text, count in counts.unfinished.items())]  # fmt: skip
    shown = heapq.nsmallest(most, found, key=lambda answer: (-answer[0], answer[1]))
    for count, text, mark in shown:
        rows.add_row(beginning(text, 40 - len(mark)) + mark, str(count), percent(count / total), bar(count / max(shown[0][0], 1)))
    hidden, cut, missing = len(found) - len(shown), counts.unfinished.total(), total - counts.total()
    below = [f"and {many(hidden, 'other answer')}"] if hidden else []
    below += [f"{cut} unfinished ({percent(cut / total)}): cut at the limit of new tokens"] if cut else []
    below += [f"{missing} not drawn yet ({percent(missing / total)})"] if missing else []
    return Group(rows, *map(Text, below))


def prompts_overview(prompts: Iterable[Prompt]) -> RenderableType:
    """Output of `validate`: targets, entropy, effective number, expected distinct at 1000 samples; for many prompts medians by folder."""
    found = list(prompts)
    aliases = [prompt.alias for prompt in found]
    several = any(prompt.held_out_requests or prompt.trained_wordings > 1 for prompt in found)
    rows = new_table(
        Text("prompt"), *([("wordings", "right")] if several else []), ("targets", "right"), ("entropy", "right"), ("effective", "right"), ("distinct\nin 1000", "right"),
    )  # fmt: skip
    for name, some in _listed(found, aliases):
        targets, entropy = median(len(prompt.targets) for prompt in some), median(prompt.entropy for prompt in some)
        rows.add_row(
            label(name, 36), *([_wordings(some)] if several else []), f"{targets:.10g}", thousandths(entropy), tenths(math.exp(entropy)) if targets else "-",
            tenths(median(prompt.expected_distinct(1000) for prompt in some)),
        )  # fmt: skip
    return Group(
        rows,
        *([Text(_MEDIANS, style="dim")] if len(found) > MOST_NAMED else []),
        *([Text("wordings: trained + held out.", style="dim")] if several else []),
        *(
            [Text("Prompts with several draws per answer: figures of one draw.", style="dim")]
            if any(prompt.draws for prompt in found)
            else []
        ),
        *(
            [Text("Prompts with independent fields: figures of the other fields.", style="dim")]
            if any(prompt.independent for prompt in found)
            else []
        ),
        Text(
            "entropy: in nats. effective: exp(entropy), the number of equally likely targets with this entropy.",
            style="dim",
        ),
    )


def _wordings(prompts: Sequence[Prompt]) -> str:
    asked, apart = (
        median(prompt.trained_wordings for prompt in prompts),
        median(len(prompt.held_out_requests) for prompt in prompts),
    )
    return f"{asked:g} + {apart:g}" if apart else f"{asked:g}"


def _listed(items: Sequence[_Kind], aliases: Sequence[str]) -> Iterator[tuple[str, Sequence[_Kind]]]:
    """Names and items of the rows of an overview: one row per prompt, or per folder if there are many prompts."""
    if len(items) <= MOST_NAMED:
        names = short_names(aliases)
        yield from ((names[alias], [item]) for alias, item in zip(aliases, items, strict=True))
        return
    by_alias = dict(zip(aliases, items, strict=True))
    for folder in folders(aliases):
        some = [by_alias[alias] for alias in aliases if alias in folder.aliases]
        yield f"{folder.label} ({many(len(some), 'prompt')})", some


def token_table(view: TokenView, top: int) -> RenderableType:
    """A prompt's tokens, then each target's with the terminator last."""
    shown, answers = view.target_tokens(top), len(view.answers)
    rows = Table.grid(padding=(0, 2))
    for name, (_, tokens) in zip(labels([text for text, _ in shown], 24), shown, strict=True):
        rows.add_row(name, Text(spelled(" ".join(tokens))))
    hidden = answers - len(shown)
    ratio = f" ({view.fed_as_rows / view.fed_packed:.1f} times fewer)" if answers else ""
    return Group(
        Text(spelled(f"\n{view.alias}"), style="bold"),
        Text(f"{many(len(view.prompt_tokens), 'prompt token')}: {spelled(' '.join(view.prompt_tokens))}"),
        rows,
        *([Text(f"({many(hidden, 'more target')}. --top 0 shows all)")] if hidden else []),
        *([Text(f"longest answer: {many(view.encoded.longest, 'token')}")] if answers else []),
        Text(f"tokens fed a step: {view.fed_as_rows} as one row per target, {view.fed_packed} packed{ratio}\n"),
    )


def training_plan(planned: Plan) -> RenderableType:
    """Plan of a training: prompts, targets, tokens per step, memory, steps."""
    rows = new_table(Text("prompt"), ("targets", "right"), ("entropy", "right"), ("tokens", "right"), ("as rows", "right"))
    for name, some in _listed(list(planned.tokens.values()), list(planned.tokens)):
        targets, entropy, packed, as_rows = (median(values) for values in zip(*some, strict=True))
        rows.add_row(label(name, 40), f"{targets:.10g}", thousandths(entropy), f"{packed:.0f}", f"{as_rows:.0f}")
    return Group(
        rows,
        *([Sentence(_MEDIANS, style="dim")] if len(planned.tokens) > MOST_NAMED else []),
        *(Sentence(line, style="dim") for line in _PLAN_LEGEND),
        Sentence(
            f"{many(planned.steps, 'optimiser step')}, about {planned.tokens_in_all} tokens in total; learning rate {planned.learning_rate:.2g}; "
            f"{planned.parameters / 1e6:.0f} M parameters; estimated peak memory {planned.memory_gb:.1f} GB"
        ),
        Sentence("time: depends on the machine. Training shows the time left after its first iteration."),
    )


def trained_table(trained: Exact, tested: Exact, digests: Set[str]) -> RenderableType:
    """Exact figures of many prompts by folder after training: prompts trained on (with these digests) and test prompts."""
    rows = new_table(
        Text("folder"), Text(""), ("prompts", "right"), ("KL\nmedian", "right"), ("KL\nworst", "right"), ("TVD\nmedian", "right"),
        ("TVD\nworst", "right"), ("on target\nmedian", "right"),
    )  # fmt: skip
    lines = [*_figures(trained), *_figures(tested, digests)]
    for folder in folders(list(dict.fromkeys(line.alias for line in lines))):
        for seen in (True, False):
            if some := [line for line in lines if line.alias in folder.aliases and line.trained == seen]:
                tvds = [line.tvd for line in some if not math.isnan(line.tvd)]
                rows.add_row(
                    label(folder.label, 24), "trained on" if seen else "not trained", str(len(some)),
                    nats(median(line.kl for line in some)), nats(max(line.kl for line in some)),
                    *(thousandths(tvd) for tvd in ((median(tvds), max(tvds)) if tvds else (math.nan, math.nan))),
                    percent(median(line.on_target for line in some)), style="bold" if folder.whole else "",
                )  # fmt: skip
    legend = "Exact figures. KL: KL(target || model) in nats. TVD: total variation distance. Several wordings: their mean. Many trained prompts: a sample of them."
    return Group(rows, Text(legend, style="dim"))


class _Line(NamedTuple):
    """A prompt's exact figures, means over its wordings."""

    alias: str
    trained: bool
    kl: float
    on_target: float
    tvd: float  # nan if unknown


def _figures(exact: Exact, copies_of: Set[str] | None = None) -> Iterator[_Line]:
    """Figures of each prompt. A test prompt with the digest of a trained prompt is its copy, unless it holds the held-out wordings or contexts."""
    for place, (prompt, (kl, on_target)) in enumerate(zip(exact.prompts, exact.figures, strict=True)):
        seen = copies_of is None or (prompt.digest in copies_of and not prompt.alias.endswith(("#held-out", "#contexts")))
        tvds = [wording.tvd for wording in exact.wordings[place]] if exact.wordings else []
        yield _Line(prompt.alias, seen, kl, on_target, math.fsum(tvds) / len(tvds) if tvds else math.nan)
