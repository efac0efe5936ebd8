"""Short forms of `python -m tests.reliability.load`."""

import numpy as np
import pytest

from benchmarks.command import measured
from diffusecli.prompts.config_files import read_config
from diffusecli.verbs.train import train
from tests.counting import calls
from tests.reliability import load


def test_a_measured_command_tells_its_own_peak_and_not_that_of_whoever_starts_it(tmp_path):
    held = bytearray(300_000_000)
    bare, done = measured(tmp_path), measured(tmp_path, "init-prompt", "--dice", "2d6")
    assert len(held) == 300_000_000
    assert (bare.code, done.code) == (0, 0), done.told
    assert (bare.said, '"targets"' in done.said) == ("", True)
    assert 5 < bare.megabytes < done.megabytes < 200


@pytest.fixture
def folder(tmp_path):
    load.write_model(tmp_path / "model")
    return tmp_path


@pytest.mark.slow
def test_a_long_training_stays_as_small_as_it_began(folder):
    done = load.a_day(folder, iterations=300)
    assert [each.code for each in done.values()] == [0, 0, 0], done
    seen = load.pace(folder / "results" / "run" / "metrics.jsonl")
    early, late = seen.memory_mb
    assert late < early + 10, seen
    early, late = seen.line_bytes
    assert late == pytest.approx(early, rel=0.05), seen


def test_the_last_iterations_of_a_training_take_no_more_work_than_the_first(folder, monkeypatch):
    monkeypatch.chdir(folder)
    load.write_prompt(folder / "p.json", ["{a}", "{b}"])
    load.write_config(folder, ["p.json"], 80, save_every=10**6)
    made = []
    with calls() as seen:
        train(read_config("cfg.yaml"), report=lambda _: made.append(seen.made), notice=lambda _: None)
    of_each = np.diff(made)
    assert len(of_each) == 79
    assert max(of_each[-30:]) <= 1.03 * min(of_each[10:40]), of_each


@pytest.mark.slow
def test_a_request_longer_than_the_model_takes_is_refused_at_once(folder):
    for command, done in load.long_request(folder).items():
        assert done.code == 2, (command, done.told)
        assert "tokens" in done.told
        assert "the model's context is 1024" in done.told
        assert "Traceback" not in done.told
