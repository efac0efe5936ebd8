"""What training shows: lines in a pipe, sparklines on a terminal."""

import io

from rich.console import Console

from diffusecli.report.progress import TrainingProgress, sparkline
from diffusecli.runs.iteration import Iteration, Step


def iterations(count, prompts=2):
    for n in range(1, count + 1):
        kl = {f"p/{k}.json": 10.0 ** (1 - n) * (k + 1) for k in range(prompts)}
        yield Iteration(
            n,
            count,
            n,
            5.0,
            4.0,
            kl,
            dict.fromkeys(kl, 0.5),
            0.01,
            1e-3,
            1.0,
            100 * n,
            2.0 * n,
            900,
            {"t": 0.3},
            {"t": 0.9},
            sum(kl.values()) / prompts,
            0.5,
            0.3,
            0.9,
        )


def shown(terminal, count=3, prompts=2):
    out = io.StringIO()
    with TrainingProgress(Console(file=out, force_terminal=terminal, width=120)) as progress:
        for seen in iterations(count, prompts):
            progress(seen)
    return out.getvalue()


def test_a_pipe_gets_one_plain_line_per_iteration():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("iteration 2/3  KL 0.1500  test KL 0.3000  on target 50.0%")
    assert lines[1].endswith("drift 0.0100  4 s, 2 s left")


def test_a_terminal_gets_a_sparkline_per_prompt():
    last = shown(terminal=True).split("iteration 3/3")[-1]
    assert sparkline([1, 0.1, 0.01]) in last
    assert sparkline([2, 0.2, 0.02]) in last
    assert "p/" not in last  # the folder they share is left out


def test_only_the_prompts_that_are_furthest_off_are_shown():
    last = shown(terminal=True, prompts=15).split("iteration 3/3")[-1]
    assert "and 3 prompts with a smaller KL" in last


def test_steps_of_long_iterations_are_shown_as_time_goes_by(monkeypatch):
    clock = iter([0.0, 10.0, 31.0, 40.0, 70.0])
    monkeypatch.setattr("diffusecli.report.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    with TrainingProgress(Console(file=out, force_terminal=False, width=120)) as progress:
        for number in range(1, 6):
            progress.step(Step(number, 100, 5.0 - number, 0.5, 2.0 * number))
    assert out.getvalue().splitlines() == [
        "step 3/100  KL 3.0000 (last 3 steps)  on target 50.0%  6 s, 194 s left",
        "step 5/100  KL 2.0000 (last 5 steps)  on target 50.0%  10 s, 190 s left",
    ]
