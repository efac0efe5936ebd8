"""What training shows: lines in a pipe, sparklines on a terminal."""

import dataclasses
import io
import math

from rich.console import Console

from diffusecli.prompts.answers import Answers
from diffusecli.report.progress import Display, SamplingProgress, TrainingProgress, live_view, sparkline
from diffusecli.runs.iteration import Iteration, Step
from diffusecli.sampling.settings import Standing
from diffusecli.system.waits import waiting_for


def iteration(n, of, kl, on_target, loss, optimal, **more):
    """A line of metrics.jsonl with 100 tokens and 2 seconds an iteration."""
    return Iteration(n, of, n, loss, optimal, kl, dict.fromkeys(kl, on_target), 0.01, 1e-3, 1.0, 100 * n, 2.0 * n, 900, **more)


def iterations(count, prompts=2):
    for n in range(1, count + 1):
        kl = {f"p/{k}.json": 10.0 ** (1 - n) * (k + 1) for k in range(prompts)}
        means = {"mean_kl": sum(kl.values()) / prompts, "mean_on_target": 0.5, "mean_test_kl": 0.3, "mean_test_on_target": 0.9}
        yield iteration(n, count, kl, 0.5, 5.0, 4.0, test_kl={"t": 0.3}, test_on_target={"t": 0.9}, **means)


def shown(terminal, count=3, prompts=2):
    out = io.StringIO()
    with TrainingProgress(Console(file=out, force_terminal=terminal, width=120)) as progress:
        for seen in iterations(count, prompts):
            progress(seen)
    return out.getvalue()


def test_a_pipe_gets_one_plain_line_per_iteration():
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("iteration 2/3  KL 0.1500  test KL 0.3000  on target 50.0 %")
    assert lines[1].endswith("on target 50.0 %  4 s, 2 s left")


def test_the_seconds_are_those_of_this_command():
    """Two earlier iterations took four seconds; those left have the pace of these."""
    out, (_, _, *here) = io.StringIO(), iterations(5)
    with TrainingProgress(Console(file=out, width=120)) as progress:
        for seen in here:
            progress.step(Step(seen.step, 5, 1.0, 0.5, seen.seconds, 4.0))
            progress(seen)
    assert [line.rpartition("  ")[2] for line in out.getvalue().splitlines()] == ["2 s, 4 s left", "4 s, 2 s left", "6 s"]


def test_a_terminal_gets_a_sparkline_per_prompt():
    last = shown(terminal=True).split("iteration 3/3")[-1]
    assert sparkline([1, 0.1, 0.01]) in last
    assert sparkline([2, 0.2, 0.02]) in last
    assert "p/" not in last  # the folder they share is left out


def test_of_many_prompts_the_folder_and_the_furthest_are_shown():
    last = shown(terminal=True, prompts=15).split("iteration 3/3")[-1]
    assert "all 15 prompts" in last
    assert f"{0.01 * 8:.4f}" in last  # the mean of .01 to .15
    assert "furthest: 14 0.1500, 13 0.1400, 12 0.1300" in last


def test_rows_keep_their_places():
    """Prompt 1 is further off than prompt 0 first, and nearer later."""
    one, two = list(iterations(2))
    two = dataclasses.replace(two, kl={"p/0.json": 3.0, "p/1.json": 0.1})
    for last in (one, two):
        text = io.StringIO()
        Console(file=text, width=120).print(live_view([one, last], 1.0))
        lines = text.getvalue().splitlines()
        assert [line.split()[0] for line in lines[-2:]] == ["0", "1"]


class Clock:
    now = 0.0


def at_will(monkeypatch):
    """A clock that stands still. The thread that looks by itself does nothing."""
    clock = Clock()
    monkeypatch.setattr("diffusecli.report.progress.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("diffusecli.system.waits.time.monotonic", lambda: clock.now)
    monkeypatch.setattr(Display, "_tick", lambda _: None)
    return clock


def test_a_pipe_gets_a_line_after_thirty_silent_seconds(monkeypatch):
    clock, out = at_will(monkeypatch), io.StringIO()
    with Display(Console(file=out, force_terminal=False, width=120)) as display:
        display.look()
        with waiting_for("loading a model"):
            for clock.now in (29.0, 31.0, 45.0, 62.0):
                display.look()
        with waiting_for("measuring") as advance:
            advance(2, 20)
            for clock.now in (90.0, 93.0):
                display.look()
            with waiting_for("more"):
                clock.now = 130.0
                display.look()
            clock.now = 170.0
            display.look()
        clock.now = 500.0
        display.look()
    assert out.getvalue().splitlines() == [
        "loading a model: 31 s", "loading a model: 62 s", "measuring: part 3 of 20, 31 s", "more: 37 s", "measuring: part 3 of 20, 108 s",
    ]  # fmt: skip


def test_a_terminal_shows_the_wait_below_the_last_figures_and_takes_it_away(monkeypatch):
    clock, out = at_will(monkeypatch), io.StringIO()
    with TrainingProgress(Console(file=out, force_terminal=True, width=120)) as progress:
        with waiting_for("loading a model"):
            clock.now = 2.0
            progress.look()
        assert "loading a model: 2 s" in out.getvalue()
        for seen in iterations(3):
            progress(seen)
        with waiting_for("measuring the exact figures"):
            clock.now = 4.5
            progress.look()
        assert "measuring the exact figures: 2 s" in out.getvalue().split("iteration 3/3")[-1]
    assert "measuring" not in out.getvalue().split("iteration 3/3")[-1]


def test_a_quiet_console_has_no_live_display_that_swallows_warnings(monkeypatch):
    clock, out = at_will(monkeypatch), io.StringIO()
    with TrainingProgress(Console(file=out, force_terminal=True, width=120, quiet=True)) as progress:
        with waiting_for("loading a model"):
            clock.now = 2.0
            progress.look()
        for seen in iterations(3):
            progress(seen)
        assert progress._live is None
    assert out.getvalue() == ""


def test_steps_of_long_iterations_are_shown_as_time_goes_by(monkeypatch):
    clock = at_will(monkeypatch)
    out = io.StringIO()
    with TrainingProgress(Console(file=out, force_terminal=False, width=120)) as progress:
        for number, clock.now in enumerate([0.0, 10.0, 31.0, 40.0, 70.0], 1):
            progress.step(Step(number, 100, 5.0 - number, 0.5, 2.0 * number))
    assert out.getvalue().splitlines() == [
        "step 3/100  KL 3.0000 (last 3 steps)  on target 50.0 %  6 s, 194 s left",
        "step 5/100  KL 2.0000 (last 5 steps)  on target 50.0 %  10 s, 190 s left",
    ]


def test_the_time_left_of_sampling_is_that_of_the_tokens_left_not_of_the_samples(monkeypatch):
    """997 of 1000 answers arrived within 40 s. The three others need as many tokens as those did, at 5 tokens a second now."""
    clock, out = at_will(monkeypatch), io.StringIO()
    some = Answers()
    some.add("{a}", 997)
    with SamplingProgress(Console(file=out, force_terminal=False, width=120), 1) as progress:
        progress("p.json", Standing(Answers(), 1000, 1, 0))
        for clock.now, fed, left in ((31.0, 100, math.nan), (62.0, 255, 150.0), (93.0, 410, 0.0)):
            progress("p.json", Standing(some, 1000, 3, fed, lambda left=left: left))
    assert out.getvalue().splitlines() == [
        "p.json: 997 of 1000 samples, 1 distinct, 31 s",
        "p.json: 997 of 1000 samples, 1 distinct, 62 s, about 36 s left",
        "p.json: 997 of 1000 samples, 1 distinct, 93 s, about 0 s left",
    ]
