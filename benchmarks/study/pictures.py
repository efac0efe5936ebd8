"""The pictures of docs/study.md, all by the report's own code: charts that `diffuse evaluate --plots` draws of the runs, the matrix of groups, losses.

Drawn anew by `python -m benchmarks.study --tables` where the runs are there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.study import losses_results
from benchmarks.study.groups import GROUPS
from benchmarks.study.page import PAGE, lines, matrix_lines
from benchmarks.study.stages import WHERE
from diffusecli.evaluation.evaluation import Matrix
from diffusecli.files.writing import write_text
from diffusecli.report.matrix_chart import of_matrix
from diffusecli.report.svg import of_cells, of_lines

PICTURES = PAGE.parent / "pictures"

OF_RUNS = {
    "study-rng": ("rng/1-10-0", "rng-1", "rng-1.cumulative"),
    "study-iq": ("weighted/together-0", "iq-scores", "iq-scores.cumulative"),
}
"""Picture -> the run, the prompt, the chart's name."""


def draw() -> Iterator[Path]:
    """Every picture whose runs are done."""
    for name, (run, only, chart) in OF_RUNS.items():
        if (WHERE / run / "run.json").is_file():
            yield _of_run(PICTURES / f"{name}.svg", WHERE / run, only, chart)
    if found := lines("losses"):
        write_text(PICTURES / "study-losses.svg", of_lines(losses_results.chart(found), "", "Means over seeds."))
        yield PICTURES / "study-losses.svg"
    matrix = list(matrix_lines("exact_kl"))[1:]  # without the untuned model, whose KL would outshine the others
    if all(len(values) == len(GROUPS) for _, values, _ in matrix):
        yield _matrix(PICTURES / "study-groups.svg", matrix)


def _of_run(picture: Path, run: Path, only: str, chart: str) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-m", "diffusecli", "evaluate", str(run), "--only", only, "--plots", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(Path(folder) / f"{chart}.svg", picture)
    return picture


def _matrix(picture: Path, lines: list[tuple[str, list[float], list[bool]]]) -> Path:
    found = Matrix(
        "exact KL, nats", tuple(told for told, _, _ in lines), tuple(GROUPS), tuple(tuple(values) for _, values, _ in lines),
        tuple(tuple(own) for _, _, own in lines),
    )  # fmt: skip
    write_text(picture, of_cells(of_matrix(found), "Means over a group's prompts."))
    return picture
