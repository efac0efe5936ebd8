"""Short forms of `python -m tests.load`."""

import pytest

from benchmarks.command import measured
from tests import load


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
def test_a_long_training_stays_as_fast_and_as_small_as_it_began(folder):
    done = load.a_day(folder, iterations=1200)
    assert [each.code for each in done.values()] == [0, 0, 0], done
    seen = load.pace(folder / "results" / "run" / "metrics.jsonl")
    early, late = seen.seconds
    assert late < 2 * early, seen
    early, late = seen.memory_mb
    assert late < early + 20, seen
    early, late = seen.line_bytes
    assert late == pytest.approx(early, rel=0.05), seen


@pytest.mark.slow
def test_a_request_longer_than_the_model_takes_is_refused_at_once(folder):
    for command, done in load.long_request(folder).items():
        assert done.code == 2, (command, done.told)
        assert "tokens" in done.told
        assert "the model takes 1024" in done.told
        assert "Traceback" not in done.told
