"""The figures below a verdict in the HTML report."""

from __future__ import annotations

from dataclasses import dataclass

from diffusecli.evaluation.evaluation import Evaluated
from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.verdicts import too_few
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.report.numbers import count, known, number, p_value, percent, span
from diffusecli.report.wording import short
from diffusecli.system.errors import many


@dataclass(frozen=True)
class Figure:
    """One of the figures below a verdict."""

    name: str
    value: str
    note: str = ""


def key_figures(row: Evaluated) -> list[Figure]:
    """The figures that explain a verdict best: those of the answers, then those of the model's own probabilities."""
    f, exact, open_ended = row.figures, row.exact, row.diversity
    found: list[Figure] = []
    if open_ended is not None:
        found.append(Figure("different answers", count(open_ended.distinct), f"of {many(open_ended.n, 'answer')}"))
        found.append(Figure("unseen", percent(open_ended.unseen_mass), "of the next answers would be new"))
        if open_ended.top:
            found.append(
                Figure("most frequent answer", percent(open_ended.top[0].count / open_ended.n), short(open_ended.top[0].text, 40))
            )
        return found
    if f is not None:
        found.append(Figure("valid", percent(f.valid), f"95 % interval {span(f.valid_low, f.valid_high, 1, 100)}"))
        found.append(Figure("TVD", number(f.tvd), f"0 is perfect; perfect sampler {number(f.tvd_floor)}"))
        if known(f.p_value) is not None:
            fits = f"below {SIGNIFICANCE}: does not fit" if f.p_value < SIGNIFICANCE else f"fits unless below {SIGNIFICANCE}"
            found.append(Figure("test of fit, p", p_value(f), "too few valid answers" if too_few(f) else fits))
    if exact is not None and known(exact.kl) is not None:
        error = exact.kl_error
        note = f"± {number(1.96 * error, 4)} nats; 0 is perfect" if error else "nats; 0 is perfect"
        if limit := with_rounding(exact.rounding).strip():
            note = f"{limit} {note}"
        found.append(Figure("estimated KL" if error else "exact KL", number(exact.kl, 4), note))
    elif f is None and row.bounds is not None:
        limits = row.bounds.shown
        found.append(Figure("KL, at least", number(limits.kl_low, 4), "nats; a limit, not exact"))
        found.append(Figure("TVD, at least", number(limits.tvd_low), "a limit"))
        found.append(Figure("on target, at most", percent(limits.on_target_high), "a limit"))
    elif row.tally.unfinished and (f is None or known(f.p_value) is None):
        found.append(Figure("unfinished", percent(row.tally.unfinished_share)))
    if exact is not None:
        if known(exact.tvd) is not None:
            found.append(Figure("exact TVD", number(exact.tvd), "no sampling noise; 0 is perfect"))
        if f is None and known(exact.on_target) is not None:
            found.append(Figure("exact on target", percent(exact.on_target)))
    return found
