"""Draw the pictures of the book from the functions that compute the figures: `python docs/pictures.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from diffusecli.evaluation.binomials import clopper_pearson
from diffusecli.evaluation.comparison import compare
from diffusecli.evaluation.fit import detectable_tvd
from diffusecli.evaluation.metrics import cells, figures
from diffusecli.evaluation.perfect import mean_tvd, perfect_sampler
from diffusecli.models.trie import ROOT, TokenTrie
from diffusecli.prompts.matching import Tally, tally
from diffusecli.prompts.prompt import Prompt

FOLDER = Path(__file__).resolve().parent / "pictures"
TARGET, TUNED, UNTUNED, INK = "#8a8f98", "#0072b2", "#d55e00", "#333333"
TEN = Prompt(request="A number from 1 to 10.", targets=tuple(f"{{{i}}}" for i in range(1, 11)))
SEVENS = dict(zip(TEN.targets, (70, 85, 92, 88, 105, 98, 190, 96, 90, 80), strict=True))
"""A thousand answers of a model that likes sevens, six of them something else."""

END, ONE, NOUGHT, TWO = range(4)
SIGNS = ("end", "1", "0", "2")
ANSWERS = TokenTrie.build([(ONE, END), (ONE, NOUGHT, END), (TWO, END)], [0.5, 0.25, 0.25])
"""The targets 1, 10 and 2 of `explanation/loss.md`."""
MODEL = (0.6, 0.5, 0.25, 0.8, 0.3, 0.5)
"""q of each node's token after its parent."""


def valid() -> alt.LayerChart:
    """The share on target with its interval, for three N."""
    shown = [(f"{k} of {n}", k / n, *clopper_pearson(k, n)) for k, n in ((994, 1000), (59, 100), (6, 10))]
    base = alt.Chart(pd.DataFrame(shown, columns=["answers", "share", "low", "high"])).encode(
        y=alt.Y("answers:N", sort=None, title=None)
    )
    axis = alt.X("low:Q", title="share of answers that are a target", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    return base.mark_rule(strokeWidth=2, color=TUNED).encode(x=axis, x2="high:Q") + base.mark_point(
        filled=True, size=80, color=TUNED
    ).encode(x="share:Q")


def entropy() -> alt.LayerChart:
    """Target, perfect sampler, samples."""
    found = figures(TEN, tally(TEN, {**SEVENS, "seven": 6}))
    shown = [("target", found.target_entropy), ("perfect sampler", found.entropy_perfect), ("answers", found.entropy)]
    base = alt.Chart(pd.DataFrame(shown, columns=["of", "entropy"])).encode(
        y=alt.Y("of:N", sort=None, title=None), x=alt.X("entropy:Q", title="entropy, nats", scale=alt.Scale(domain=[0, 2.6]))
    )
    color = alt.Color(
        "of:N", scale=alt.Scale(domain=["target", "perfect sampler", "answers"], range=[TARGET, TARGET, TUNED]), legend=None
    )
    return base.mark_bar(height=14).encode(color=color) + base.mark_text(dx=4, align="left").encode(
        text=alt.Text("entropy:Q", format=".3f")
    )


def coverage() -> alt.Chart:
    """Expected distinct targets against N."""
    names = {"200 equal weights": np.full(200, 1 / 200), "200 Zipf weights": (z := 1 / np.arange(1, 201)) / z.sum()}
    shown = [
        (name, n, float((1 - (1 - p) ** n).sum())) for name, p in names.items() for n in np.geomspace(10, 10_000, 60).astype(int)
    ]
    return _lines(pd.DataFrame(shown, columns=["weights", "N", "targets"]), "N", "targets", "weights", "N answers", "targets seen")


def tvd() -> alt.LayerChart:
    """What a perfect sampler shows, its mean, and one sample set."""
    null = perfect_sampler((0.01,) * 100, 1000, 0).tvd
    marks = {
        "floor": mean_tvd(1000, np.full(100, 0.01)),
        "95 % of perfect samplers": float(np.quantile(null, 0.95)),
        "these answers": 0.17,
    }
    return _null(null, marks, "TVD of 1000 answers, 100 equal targets")


def fit() -> alt.LayerChart:
    """The law of G under the target, and one sample set."""
    null = perfect_sampler((0.1,) * 10, 1000, 0).g
    return _null(null, {"these answers (p: the share beyond)": 15.0}, "G of 1000 answers, 10 equal targets")


def residuals() -> alt.LayerChart:
    """One cell is marked."""
    shown = pd.DataFrame([(c.target, c.residual, "differs" if c.differs else "may be chance") for c in cells(TEN, tally(TEN, SEVENS))],
                         columns=["target", "residual", "verdict"])  # fmt: skip
    color = alt.Color("verdict:N", title=None, scale=alt.Scale(domain=["differs", "may be chance"], range=[UNTUNED, TARGET]))
    x = alt.X("target:N", sort=None, title=None, axis=alt.Axis(labelAngle=0))
    bars = alt.Chart(shown).mark_bar(width=16).encode(x=x, y=alt.Y("residual:Q", title="standardised residual"), color=color)
    return bars + alt.Chart(pd.DataFrame({"y": [0]})).mark_rule(color=INK).encode(y="y:Q")


def power() -> alt.Chart:
    """The least TVD that would be detected against N."""
    shown = [
        (f"{k} targets", int(n), detectable_tvd((1 / k,) * k, int(n))) for k in (2, 10, 100) for n in np.geomspace(50, 20_000, 50)
    ]
    table = pd.DataFrame(shown, columns=["set", "N", "tvd"])
    return _lines(table, "N", "tvd", "set", "N valid answers", "TVD that would be detected")


def ordered() -> alt.LayerChart:
    """Two distribution functions and the area between them."""
    share = np.cumsum(np.array(list(SEVENS.values())) / sum(SEVENS.values()))
    at = np.arange(1, 11)
    table = pd.DataFrame({"value": at, "target": at / 10, "answers": share})
    area = (
        alt.Chart(table)
        .mark_area(interpolate="step-after", opacity=0.25, color=TUNED)
        .encode(x="value:Q", y="target:Q", y2="answers:Q")
    )
    axis = alt.X("value:Q", title="value", scale=alt.Scale(domain=[1, 10]))
    names = {"target": TARGET, "answers": TUNED}
    curves = alt.Chart(table.melt("value", var_name="of", value_name="share")).mark_line(interpolate="step-after").encode(
        x=axis, y=alt.Y("share:Q", title="share up to here"),
        color=alt.Color("of:N", title=None, scale=alt.Scale(domain=list(names), range=list(names.values()))),
    )  # fmt: skip
    return area + curves


def exact() -> alt.Chart:
    """Weights and the model's own probabilities."""
    q = np.array(list(SEVENS.values())) / 1006
    shown = [
        (t, name, float(v))
        for name, values in (("weight p", [0.1] * 10), ("model q", q))
        for t, v in zip(TEN.targets, values, strict=True)
    ]
    return alt.Chart(pd.DataFrame(shown, columns=["target", "of", "value"])).mark_bar().encode(
        x=alt.X("target:N", sort=None, title=None, axis=alt.Axis(labelAngle=0)), xOffset=alt.XOffset("of:N", sort=None),
        y=alt.Y("value:Q", title="probability"),
        color=alt.Color("of:N", sort=None, title=None, scale=alt.Scale(domain=["weight p", "model q"], range=[TARGET, TUNED])),
    )  # fmt: skip


def unseen() -> alt.LayerChart:
    """How many different answers came once, twice, …."""
    times = np.bincount(np.random.default_rng(0).multinomial(500, (z := 1 / np.arange(1, 401)) / z.sum()))[1:9]
    shown = pd.DataFrame({"times": np.arange(1, 9), "answers": times, "kind": ["seen once: f1"] + ["seen more often"] * 7})
    color = alt.Color("kind:N", title=None, scale=alt.Scale(domain=["seen once: f1", "seen more often"], range=[UNTUNED, TARGET]))
    base = alt.Chart(shown).encode(x=alt.X("times:O", title="how often an answer came", axis=alt.Axis(labelAngle=0)),
                                   y=alt.Y("answers:Q", title="different answers"))  # fmt: skip
    return base.mark_bar(width=22).encode(color=color) + base.mark_text(dy=-6).encode(text="answers:Q")


def differences() -> alt.LayerChart:
    """After minus before with bootstrap intervals."""
    before, leaning = Tally((100,) * 10, Counter()), Tally(tuple(SEVENS.values()), Counter())
    pairs = {"leaning - even": (before, leaning), "leaning - leaning": (leaning, leaning)}
    found = {name: compare(a, b, TEN.probabilities, 0).excess_tvd for name, (a, b) in pairs.items()}
    table = pd.DataFrame([(name, e.value, e.low, e.high) for name, e in found.items()], columns=["pair", "value", "low", "high"])
    base = alt.Chart(table).encode(y=alt.Y("pair:N", sort=None, title=None))
    rules = base.mark_rule(strokeWidth=2, color=TUNED).encode(x=alt.X("low:Q", title="difference of excess TVD"), x2="high:Q")
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color=INK, strokeDash=[3, 3]).encode(x="x:Q")
    return rules + base.mark_point(filled=True, size=80, color=TUNED).encode(x="value:Q") + zero


def tree() -> alt.LayerChart:
    """The weight of each node and the model's probability of its token."""
    masses = [f"W = {mass:g}" for mass in ANSWERS.masses]
    return _tree(masses, [f"q = {q:g}" for q in MODEL], "W = 1")


def counts() -> alt.LayerChart:
    """A thousand draws: the count of a prefix splits among its children, and what is left goes to texts that are no target."""
    generator, drawn = np.random.default_rng(0), [0] * len(ANSWERS)
    for parent in (ROOT, *ANSWERS.internal):
        children = [node for node, of in enumerate(ANSWERS.parents) if of == parent]
        shares = [MODEL[node] for node in children]
        split = generator.multinomial(1000 if parent == ROOT else drawn[parent], [*shares, 1 - sum(shares)])
        for node, count in zip(children, split, strict=False):
            drawn[node] = int(count)
    return _tree([f"{count} draws" for count in drawn], [f"q = {q:g}" for q in MODEL], "1000 draws")


def mask() -> alt.Chart:
    """Which fed token sees which: the prompt's three, then the internal nodes."""
    fed = ["x₁", "x₂", "x₃", *("".join(SIGNS[ANSWERS.tokens[v]] for v in ANSWERS.ancestors(node)) for node in ANSWERS.internal)]
    prompt = len(fed) - len(ANSWERS.internal)
    place = {node: prompt + at for at, node in enumerate(ANSWERS.internal)}
    seen = [
        {*range(at + 1)} if at < prompt else {*range(prompt), *(place[v] for v in ANSWERS.ancestors(ANSWERS.internal[at - prompt]))}
        for at in range(len(fed))
    ]
    cells = [(row, column, "sees" if j in seen[i] else "does not see") for i, row in enumerate(fed) for j, column in enumerate(fed)]
    color = alt.Color("of:N", title=None, sort=None, scale=alt.Scale(domain=["sees", "does not see"], range=[TUNED, "#e6e8eb"]))
    return alt.Chart(pd.DataFrame(cells, columns=["row", "column", "of"])).mark_rect(stroke="white", strokeWidth=2).encode(
        x=alt.X("column:N", sort=None, title="fed token", axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("row:N", sort=None, title="sees"), color=color,
    )  # fmt: skip


PICTURES: dict[str, Callable[[], Any]] = {
    "valid": valid, "entropy": entropy, "coverage": coverage, "tvd": tvd, "fit": fit, "residuals": residuals, "power": power,
    "ordered": ordered, "exact": exact, "unseen": unseen, "differences": differences,
    "tree": tree, "counts": counts, "mask": mask,
}  # fmt: skip


def _tree(above: list[str], below: list[str], root: str) -> alt.LayerChart:
    """`ANSWERS` from left to right: a line of text above and one below each node, tokens within."""
    heights: dict[int, float] = {leaf: float(-at) for at, leaf in enumerate(sorted(ANSWERS.leaves))}
    for node in (*reversed(ANSWERS.internal), ROOT):
        below_it = [heights[child] for child, parent in enumerate(ANSWERS.parents) if parent == node]
        heights[node] = sum(below_it) / len(below_it)
    spots = pd.DataFrame([(0, heights[ROOT], "prompt", root, "")] + [
        (depth, heights[node], SIGNS[token], above[node], below[node])
        for node, (token, depth) in enumerate(zip(ANSWERS.tokens, ANSWERS.depths, strict=True))
    ], columns=["x", "y", "token", "above", "below"])  # fmt: skip
    edges = pd.DataFrame([
        (0 if parent == ROOT else ANSWERS.depths[parent], heights[parent], ANSWERS.depths[node], heights[node])
        for node, parent in enumerate(ANSWERS.parents)
    ], columns=["x", "y", "x2", "y2"])  # fmt: skip
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.75, 3.35]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-2.5, 0.5]))
    at = alt.Chart(spots).encode(x=x, y=y)
    return alt.layer(
        alt.Chart(edges).mark_rule(strokeWidth=1.5, color=TARGET).encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        at.mark_circle(size=900, color="white", stroke=TUNED, strokeWidth=1.5, opacity=1).transform_filter("datum.x > 0"),
        at.mark_text(fontSize=12, fontWeight="bold", color=INK).encode(text="token:N").transform_filter("datum.x > 0"),
        at.mark_text(fontSize=12, fontWeight="bold", color=INK, align="right", dx=-4)
        .encode(text="token:N")
        .transform_filter("datum.x == 0"),
        at.mark_text(dy=-23, color=TUNED).encode(text="above:N").transform_filter("datum.x > 0"),
        at.mark_text(dy=-14, color=TUNED, align="right", dx=-4).encode(text="above:N").transform_filter("datum.x == 0"),
        at.mark_text(dy=24, color=INK).encode(text="below:N"),
    )


def _lines(table: pd.DataFrame, x: str, y: str, of: str, x_title: str, y_title: str) -> alt.Chart:
    return alt.Chart(table).mark_line().encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=alt.Scale(type="log", nice=False), axis=alt.Axis(values=[100, 1000, 10_000])), y=alt.Y(f"{y}:Q", title=y_title),
        color=alt.Color(f"{of}:N", title=None, sort=None, scale=alt.Scale(range=[TUNED, UNTUNED, TARGET])),
    )  # fmt: skip


def _null(null: np.ndarray, marks: dict[str, float], title: str) -> alt.LayerChart:
    heights, edges = np.histogram(null, bins=24)
    bars = alt.Chart(pd.DataFrame({"left": edges[:-1], "right": edges[1:], "n": heights})).mark_bar(color=TARGET, opacity=0.6).encode(
        x=alt.X("left:Q", bin="binned", title=title, scale=alt.Scale(zero=False)), x2="right:Q", y=alt.Y("n:Q", title="perfect samplers")
    )  # fmt: skip
    table = pd.DataFrame({"what": list(marks), "at": list(marks.values())})
    colors = alt.Scale(domain=list(marks), range=[INK, UNTUNED, TUNED] if len(marks) > 1 else [TUNED])
    rules = alt.Chart(table).mark_rule(strokeWidth=2).encode(x="at:Q", color=alt.Color("what:N", title=None, scale=colors))
    return bars + rules


def draw() -> None:
    """Write every picture as SVG."""
    FOLDER.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        chart = picture().properties(
            width=420,
            height=230 if name in ("tree", "counts", "mask") else 150,
            background="white",
            padding={"left": 24, "top": 5, "right": 12, "bottom": 5},
        )
        chart.configure_view(stroke=None).configure_axis(grid=False).configure_legend(orient="top", labelLimit=0).save(
            FOLDER / f"{name}.svg"
        )


if __name__ == "__main__":
    draw()
