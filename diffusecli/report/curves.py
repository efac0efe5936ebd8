"""The values of line charts: cumulative shares compared with a perfect sampler, and training curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from diffusecli.evaluation.names import short_names
from diffusecli.evaluation.run_records import Manifest
from diffusecli.evaluation.sample_set import RunFacts
from diffusecli.files.reading import MOST_BYTES
from diffusecli.prompts.groups import noun_of
from diffusecli.report.numbers import known
from diffusecli.report.views import TARGET, Section, distinct
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import many

_POINTS = 80  # of a line
_DRAWS = 400  # of a perfect sampler
_LINES = 8
_LONGEST_NAME = 28  # columns of the name of a line
_ITERATIONS = 500  # most iterations shown of a training
_LOWEST_KL = 1e-6  # lower end of a logarithmic axis


@dataclass(frozen=True)
class Cumulative:
    """Cumulative shares along an order of the targets: `points` have x, y and series; `band` has x, low and high."""

    axis: str
    reading: str  # how to read it
    points: list[dict[str, Any]]
    band: list[dict[str, Any]]
    steps: bool = False  # whether there are no values between the points


def cumulative(section: Section, seed: int) -> Cumulative:
    """Order by value if targets have one; otherwise by weight, or by each sampler's own ranks if all weights are equal."""
    if section.values is not None:
        return _along(section, np.argsort(section.values[0]), np.sort(section.values[0]), section.values[1] or "value",
                      "The share of answers up to each value.")  # fmt: skip
    p = np.array(section.prompt.probabilities)
    if not section.uniform:
        return _along(section, np.argsort(-p, kind="stable"), np.arange(1, len(p) + 1), "targets, largest weight first",
                      "The share of answers on the targets with the largest weights, up to each rank.")  # fmt: skip
    return _concentration(section, p, seed)


def _along(section: Section, order: np.ndarray, at: np.ndarray, axis: str, reading: str) -> Cumulative:
    p, n = np.array(section.prompt.probabilities)[order], _judged_n(section)
    below = np.clip(np.cumsum(p), 0, 1)
    noise = 1.96 * np.sqrt(below * (1 - below) / n)
    lines = {TARGET: below} | {
        sampler.label: np.cumsum(np.array(row.tally.counts)[order]) / row.tally.n for sampler, row in section.sampled
    }
    band = [at, np.clip(below - noise, 0, 1), np.clip(below + noise, 0, 1)]
    return Cumulative(
        axis, f"{reading} {_band_in_words(n)}", _points(at, lines), _band(*band), section.values is not None and len(at) <= _POINTS
    )


def _concentration(section: Section, p: np.ndarray, seed: int) -> Cumulative:
    """Each sampler's most frequent targets first: the slope of the line matters, not which targets they are."""
    n, at = _judged_n(section), np.arange(1, len(p) + 1)
    draws = np.sort(np.random.default_rng(seed).multinomial(n, p / p.sum(), size=_DRAWS), axis=1)[:, ::-1].cumsum(1) / n
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    lines = {TARGET: draws.mean(0)} | {
        sampler.label: np.sort(row.tally.counts)[::-1].cumsum() / row.tally.n for sampler, row in section.sampled
    }
    reading = "The share of answers on each sampler's most frequent targets, up to each rank. Steeper is more uneven."
    return Cumulative(
        "targets, each sampler's most frequent first", f"{reading} {_band_in_words(n)}", _points(at, lines), _band(at, low, high)
    )


def _judged_n(section: Section) -> int:
    """Answers of the samplers that the band judges: the tuned ones; of several, the fewest."""
    return min(row.tally.n for _, row in section.main)


def _band_in_words(n: int) -> str:
    spaced = f"{n:,}".replace(",", "\u202f")
    return f"Grey: a perfect sampler with {spaced} answers: its mean, and the band of 95 % of such samplers at each point."


def _thin(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))


def _points(at: np.ndarray, lines: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    return [{"x": float(at[i]), "y": float(line[i]), "series": name} for name, line in lines.items() for i in _thin(len(at))]


def _band(at: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    return [{"x": float(at[i]), "low": float(low[i]), "high": float(high[i])} for i in _thin(len(at))]


@dataclass(frozen=True)
class Training:
    """A run's iterations. `kl` has x, y and series: one per prompt, or the mean of many prompts with their quartiles as `band`.

    Figures are from before each step. If the run records the exact KL after the last step, it is the last point of `kl`.
    """

    kl: list[dict[str, Any]]
    band: list[dict[str, Any]]
    loss: list[dict[str, Any]]
    drift: list[dict[str, Any]]
    of: str  # number of prompts (or folders) in the band
    ended: bool  # whether the last point of `kl` is from after the last step


def training(facts: RunFacts) -> Training | None:
    """Read metrics.jsonl; None if it does not exist or has no complete line."""
    lines = list(_iterations(facts.folder, _ITERATIONS))
    aliases = list(dict.fromkeys(alias for line in lines for alias in line["kl"]))
    if not aliases:
        return None
    end = _after(lines, aliases, facts.manifest)
    few, mean = len(aliases) <= _LINES, "mean of prompts trained on"
    kl = _each([*lines, *end], aliases) if few else _means(lines, "kl", mean) + _means(end, "kl", mean)
    return Training(
        kl + _means(lines, "test_kl", "mean of prompts not trained on"),
        [] if few else _quartiles(lines),
        _series(lines, "loss", "loss") + _series(lines, "optimal", "lowest possible"),
        _series(lines, "retention_kl", "drift"),
        many(len(aliases), noun_of(aliases)),
        bool(end),
    )


def _after(lines: list[dict[str, Any]], aliases: list[str], manifest: Manifest) -> list[dict[str, Any]]:
    """The exact KL after the last step, in place of an iteration after the last; [] if the run has no such figures.

    Folders of many prompts have no such figures, but their mean has, unless training ended with figures of only some prompts.
    """
    iteration, kl = lines[-1]["iteration"] + 1, manifest.exact_kl
    if not kl or manifest.iterations not in (None, lines[-1]["iteration"]):
        return []
    if set(aliases) <= set(kl):
        own = {alias: kl[alias] for alias in aliases}
        return [{"iteration": iteration, "kl": own, "mean_kl": sum(own.values()) / len(own)}]
    whole = len(aliases) > _LINES and manifest.prompts_trained == len(kl)
    return [{"iteration": iteration, "kl": {}, "mean_kl": sum(kl.values()) / len(kl)}] if whole else []


def _iterations(run: RunDir, most: int) -> Iterator[dict[str, Any]]:
    """At most `most` iterations, evenly spaced, including the last. Skips broken lines: an interrupted run may end with one."""
    try:
        if run.metrics.stat().st_size > MOST_BYTES:
            return
        with run.metrics.open("rb") as file:
            count = sum(1 for _ in file)
            chosen = set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())
            file.seek(0)
            lines = [line.decode("utf-8", "replace") for number, line in enumerate(file) if number in chosen]
    except OSError:
        return
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and _is_figure(found.get("iteration")) and isinstance(found.get("kl"), dict):
            yield found


def _numbers(values: Any) -> dict[str, float]:
    there = values if isinstance(values, dict) else {}
    return {name: value for name, value in there.items() if _is_figure(value)}


def _is_figure(value: Any) -> TypeGuard[float]:
    """Whether a value from JSON can be drawn: its integers may have any number of digits."""
    return isinstance(value, int | float) and abs(value) < sys.float_info.max


def _each(lines: list[dict[str, Any]], aliases: list[str]) -> list[dict[str, Any]]:
    names = dict(zip(aliases, distinct(list(short_names(aliases).values()), _LONGEST_NAME), strict=True))
    return [{"x": line["iteration"], "y": max(value, _LOWEST_KL), "series": names[alias]}
            for line in lines for alias, value in _numbers(line["kl"]).items()]  # fmt: skip


def _mean(lines: list[dict[str, Any]], key: str, name: str) -> list[dict[str, Any]]:
    found = [(line["iteration"], list(_numbers(line.get(key)).values())) for line in lines]
    return [{"x": x, "y": max(sum(values) / len(values), _LOWEST_KL), "series": name} for x, values in found if values]


def _means(lines: list[dict[str, Any]], key: str, name: str) -> list[dict[str, Any]]:
    """As recorded; for a run of an older version the mean over its prompts or folders."""
    found = _series(lines, f"mean_{key}", name) or _mean(lines, key, name)
    return [{**point, "y": max(point["y"], _LOWEST_KL)} for point in found]


def _quartiles(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [(line["iteration"], list(_numbers(line["kl"]).values())) for line in lines]
    cut = [(x, np.maximum(np.quantile(values, [0.25, 0.75]), _LOWEST_KL)) for x, values in found if values]
    return [{"x": x, "low": float(low), "high": float(high)} for x, (low, high) in cut]


def _series(lines: list[dict[str, Any]], key: str, name: str) -> list[dict[str, Any]]:
    found = [(line["iteration"], line.get(key)) for line in lines]
    return [{"x": x, "y": float(y), "series": name} for x, y in found if _is_figure(y) and known(y) is not None]
