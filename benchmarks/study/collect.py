"""What the stages left, as small tables: one CSV file per piece in `benchmarks/study/results/`, a line per run and prompt.

Reads what `diffuse evaluate --json` printed, the runs' manifests and samples; computes only what no report of the tool has. Lines of runs that are not
in this folder stay as they are, so that pieces can be run in several places.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.study import fields, kept, literature, losses_results, surveys, wordings
from benchmarks.study.plan import EXPERIMENTS, PIECES, ROWS, Experiment, ability_stages, stages_of
from benchmarks.study.stages import Stage, is_done, read_journal, seconds_of
from benchmarks.study.tasks import TASKS
from diffusecli.evaluation.perfect import mean_tvd
from diffusecli.files.writing import write_text
from diffusecli.prompts.prompt_files import read_prompt

RESULTS = Path(__file__).parent / "results"

_FIGURES = (
    "n", "valid", "valid_low", "valid_high", "seen", "seen_expected", "tvd", "tvd_floor", "excess_tvd", "p_value",
    "entropy", "entropy_perfect", "target_entropy",
)  # fmt: skip
_EXACT = ("kl", "on_target", "tvd", "seen_expected")

_KEYS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(EXPERIMENTS, ("run", "seed")),
    **dict.fromkeys(TASKS, ("model", "kind")),
    "losses": ("way", "seed"),
    "wordings": ("model", "held_out", "seed"),
    fields.PIECE: (),
    kept.PIECE: ("model",),
    surveys.PIECE: ("group", "seed"),
    "lines": ("run", "seed", "mode"),
    "abilities": ("model",),
    "curves": ("run", "seed"),
    "minutes": ("piece", "seed"),
}
"""Table -> the columns that say which run its lines are of. Lines of one run are replaced together. Lines without a seed are of seed 0."""

_CHANGES = ("lost", "gained", "p_value", "log_prob_change", "log_prob_change_low", "log_prob_change_high")

Line = dict[str, Any]


def collect() -> list[Path]:
    """Write the tables of all that is done; returns their paths."""
    found: dict[str, list[Line]] = {piece: [] for piece in EXPERIMENTS}
    for experiment, seed in _finished():
        found[experiment.piece] += _lines(experiment, seed)
    found["weighted"] = [line | nearest(line) for line in found["weighted"]]
    found["groups"] = [line | on_target(line) for line in found["groups"]]
    found["names"] = [line | _new_names(line) for line in found["names"]]
    journal = read_journal()
    tables = {
        **found,
        **{task: list(literature.lines(task, journal)) for task in TASKS},
        "losses": list(losses_results.lines(journal)),
        "wordings": list(wordings.lines(journal, RESULTS / "groups.csv")),
        "fields": list(fields.lines(journal)),
        kept.PIECE: list(kept.lines(journal)),
        surveys.PIECE: list(surveys.lines(journal)),
        "lines": list(_people()),
        "abilities": list(_abilities()),
        "curves": list(_curves()),
        "minutes": list(minutes()),
    }
    written = [_write(name, _with_earlier(name, lines)) for name, lines in tables.items() if lines]
    for stage in (ROWS, literature.GENERATOR):  # that print a table
        if is_done(stage, journal):
            written.append(RESULTS / stage.product.name)
            write_text(written[-1], stage.product.read_text(encoding="utf-8"))
    return written


def _finished() -> Iterator[tuple[Experiment, int]]:
    journal = read_journal()
    for experiments in EXPERIMENTS.values():
        for experiment in experiments:
            for seed in range(experiment.seeds):
                if all(is_done(stage, journal) for stage in experiment.stages(seed)):
                    yield experiment, seed


def _lines(experiment: Experiment, seed: int) -> Iterator[Line]:
    """A line per mode and prompt."""
    document, manifest = _read(experiment.evaluation(seed)), _read(experiment.run(seed) / "run.json")
    drift = document["retention_kl"].get(str(experiment.run(seed)), manifest.get("retention_kl"))
    for row in document["rows"]:
        figures, exact = row["figures"] or {}, row["exact"] or {}
        yield {
            "run": experiment.name, "seed": seed, "mode": row["mode"], "prompt": row["prompt"],
            "trained": row["prompt"] in manifest["exact_kl"],
            **{name: figures.get(name) for name in _FIGURES},
            **{f"exact_{name}": exact.get(name) for name in _EXACT},
            "drift": drift if row["mode"] == "lora" else 0.0,
            "trained_kl": mean(manifest["exact_kl"].values()) if row["mode"] == "lora" else None,
            "iterations": manifest["iterations"], "train_seconds": manifest["training_seconds"],
        }  # fmt: skip


def on_target(line: Mapping[str, Any]) -> Line:
    """Of the samples of one run: the share in braces, and of those on target alone the TVD and what a perfect sampler of as many shows."""
    if line["n"] is None:
        return {}
    answers = [answer.strip() for answer in _samples("groups", line)[line["prompt"]]]
    law = _law(line["prompt"])
    those = [answer for answer in answers if answer in law]
    return {
        "braced": mean(answer.startswith("{") and answer.endswith("}") for answer in answers),
        "on_target_tvd": distance(law, _shares(those)) if those else None,
        "on_target_floor": mean_tvd(len(those), np.array(list(law.values()))) if those else None,
    }


def nearest(line: Mapping[str, Any]) -> Line:
    """What a prompt has in common with another that the run was trained on.

    `nearest_tvd` is the least total variation distance of its target to a trained one: what copying that would reach. `answered_like` is the trained
    prompt whose answers are most like its own, `answered_tvd` their distance.
    """
    experiment = _experiment("weighted", line)
    if not experiment.needs:
        return {}
    trained = [path for path in _read(experiment.run(line["seed"]) / "run.json")["exact_kl"] if path != line["prompt"]]
    found = {"nearest_tvd": min(distance(_law(line["prompt"]), _law(path)) for path in trained)}
    if line["n"] is None or line["mode"] == "untuned":
        return found
    answers = _samples("weighted", line)
    apart = {path: distance(_shares(answers[line["prompt"]]), _shares(answers[path])) for path in trained}
    like = min(apart, key=lambda path: apart[path])
    return {**found, "answered_like": Path(like).stem.replace("-", " "), "answered_tvd": apart[like]}


def distance(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Total variation distance of two laws, 1 - sum of min(p, q).

    >>> distance({"a": 0.5, "b": 0.5}, {"b": 0.5, "c": 0.5})
    0.5
    """
    return 1 - sum(min(p, b.get(text, 0.0)) for text, p in a.items())


def _experiment(piece: str, line: Mapping[str, Any]) -> Experiment:
    return next(experiment for experiment in EXPERIMENTS[piece] if experiment.name == line["run"])


def _samples(piece: str, line: Mapping[str, Any]) -> dict[str, list[str]]:
    """Prompt -> answers of the run that a line tells of."""
    answers: dict[str, list[str]] = _read(_experiment(piece, line).run(line["seed"]) / f"gen.{line['mode']}.json")
    return answers


def _law(path: str) -> dict[str, float]:
    prompt = read_prompt(path)
    return dict(zip(prompt.targets, prompt.probabilities, strict=True))


def _shares(answers: Sequence[str]) -> dict[str, float]:
    return {text: count / len(answers) for text, count in Counter(answer.strip() for answer in answers).items()}


def _new_names(line: Mapping[str, Any]) -> Line:
    """Of the samples of one run: how many different names beyond the 200 it gave that somebody bears, and their share."""
    from benchmarks.study.real_names import common_names, real_names

    if line["n"] is None:  # exact figures only
        return {}
    answers = _samples("names", line)[line["prompt"]]
    targets = set(read_prompt(line["prompt"]).targets)
    others = Counter(answer.strip() for answer in answers if answer.strip() not in targets)
    real = {name: count for name, count in others.items() if name[:1] == "{" and name[-1:] == "}" and name[1:-1] in real_names()}
    return {
        "other_answers": sum(others.values()), "real_answers": sum(real.values()), "real_names": len(real),
        "common_names": sum(name[1:-1] in common_names() for name in real), "distinct": len(set(answers)), "examples": " ".join(sorted(real, key=lambda name: -real[name])[:8]),
    }  # fmt: skip


def _people() -> Iterator[Line]:
    """A line per heading of the biographies."""
    for experiment, seed in _finished():
        for row in _read(experiment.evaluation(seed))["rows"] if experiment.piece == "people" else ():
            for one in row["lines"]:
                told = one["diversity"]
                yield {
                    "run": experiment.name, "seed": seed, "mode": row["mode"], "heading": one["heading"], "answers": row["n"],
                    **{name: told[name] for name in ("n", "distinct", "once", "unseen_mass", "chao1", "beyond")},
                    "commonest": told["top"][0]["text"], "commonest_count": told["top"][0]["count"],
                }  # fmt: skip


def _abilities() -> Iterator[Line]:
    """A line per model, each compared with the untuned one."""
    from benchmarks.study.abilities import compare

    journal = read_journal()
    told = {name: _read(stage.product) for name, stage in ability_stages() if is_done(stage, journal)}
    for name, figures in told.items() if "untuned" in told else ():
        changes = compare(told["untuned"], figures)
        yield {
            "model": name, **{key: value for key, value in figures.items() if not isinstance(value, list | dict)},
            **{f"{kind}_{key}": changes[kind][key] for kind in ("choices", "arithmetic") for key in _CHANGES},
            **{key: value for key, value in changes["passages"].items() if key.startswith("perplexity")},
        }  # fmt: skip


def _curves() -> Iterator[Line]:
    """Exact KL by iteration of the ablations."""
    for experiment, seed in _finished():
        if experiment.piece == "ablations":
            for text in (experiment.run(seed) / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                seen = json.loads(text)
                for prompt, kl in seen["kl"].items():
                    yield {
                        "run": experiment.name,
                        "seed": seed,
                        "iteration": seen["iteration"],
                        "prompt": prompt,
                        "kl": kl,
                        "retained": seen["retention_kl"],
                    }


def minutes() -> Iterator[Line]:
    """What each finished piece took, by the clock; a stage that several share counts where it comes first."""
    journal, counted = read_journal(), set[Stage]()
    for seed in range(max(e.seeds for experiments in EXPERIMENTS.values() for e in experiments)):
        for piece in PIECES:
            every = set(stages_of([piece], seed))
            if every and all(journal.get(stage.name, {}).get("done") for stage in every):
                yield {"piece": piece, "seed": seed, "minutes": round(seconds_of(every - counted, journal) / 60, 1)}
            counted |= every


def _with_earlier(name: str, found: list[Line]) -> list[Line]:
    """These lines in the places of earlier ones of the same runs, then those of other runs; all other earlier lines stay."""
    path = RESULTS / f"{name}.csv"
    earlier = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")) if path.is_file() else ()
    of_runs = _by_run(name, earlier) | _by_run(name, found)  # in the order of the first
    return [line for lines in of_runs.values() for line in lines]


def _by_run(name: str, lines: Iterable[Line]) -> dict[tuple[str, ...], list[Line]]:
    of_runs: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        of_runs.setdefault(tuple(str(line.get(column, 0)) for column in _KEYS[name]), []).append(line)
    return of_runs


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(name: str, lines: list[Line]) -> Path:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: _short(value) for key, value in line.items()} for line in lines])
    write_text(RESULTS / f"{name}.csv", file.getvalue())
    return RESULTS / f"{name}.csv"


def _short(value: Any) -> Any:
    """Six digits are enough for a table, and differ less between machines."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
