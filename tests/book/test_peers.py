"""The benchmark against other ways to train: what it gives TRL, what it reads from it, and what it says where there is none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.command import Done, measured_program
from benchmarks.peers import PartError, Row, drawn_rows, first_or_lowest, table
from diffusecli.prompts.prompt import Prompt

DEFAULTS = Row("diffuse, defaults", 8, 10.0, 1000.0, 0.04)
BARE = Row("diffuse, retain: off", 7, 5.0, 900.0, 0.03)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def pip_fails(command):
    if "pip" in command:
        raise subprocess.CalledProcessError(1, "pip", stderr="WARNING: offline\nERROR: No matching distribution found for trl\n")


def test_a_row_is_a_conversation_with_the_target_as_its_completion():
    rows = drawn_rows(Prompt(request="Say a.", targets=("{a}",), alias="a"), 2, seed=0)
    expected = {"prompt": [{"role": "user", "content": "Say a."}], "completion": [{"role": "assistant", "content": "{a}"}]}
    assert rows == [expected, expected]


def test_targets_are_drawn_from_the_weights():
    prompt = Prompt(request="Say a or b.", targets=("{a}", "{b}"), weights=(4, 1), alias="ab")
    share = np.mean([row["completion"][0]["content"] == "{a}" for row in drawn_rows(prompt, 10_000, seed=0)])
    assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 10_000)


@pytest.mark.parametrize(("kls", "index"), [([0.3, 0.05, 0.01], 1), ([0.04], 0), ([0.3, 0.06, 0.2], 1)])
def test_the_first_adapter_at_the_goal_counts_or_else_the_lowest(kls, index):
    assert first_or_lowest(kls) == index


def test_seconds_are_compared_with_both_of_ours():
    line = table([Row("rows", 72, 300.0, 2294.4, 0.05)], DEFAULTS, BARE).splitlines()[-1]
    assert cells(line) == ["rows", "72", "300.0", "30.0x", "60.0x", "2294"]


def test_a_way_that_does_not_reach_the_goal_shows_its_lowest_kl_and_a_lower_bound():
    line = table([Row("TRL", 28, 100.0, 2000.0, 0.0612)], DEFAULTS, BARE).splitlines()[-1]
    assert cells(line) == ["TRL", "not reached: lowest KL 0.061 at 28", "100.0", "> 10.0x", "> 20.0x", "2000"]


def test_without_trl_the_row_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peers, "_quiet", pip_fails)
    rows = peers.peers(tmp_path)
    assert [row.missing for row in rows] == ["TRL cannot be installed: ERROR: No matching distribution found for trl"]
    assert cells(table(rows, DEFAULTS, BARE).splitlines()[-1])[1:] == [rows[0].missing, "-", "-", "-", "-"]


def test_an_environment_that_could_not_be_made_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(peers, "_quiet", pip_fails)
    with pytest.raises(PartError):
        peers.environment()
    assert not list((tmp_path / "peers").iterdir())


def test_an_environment_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    python = tmp_path / "peers" / "trl" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path))
    monkeypatch.setattr(peers, "_quiet", lambda command: pytest.fail(f"ran {command}"))
    assert peers.environment() == python


def test_a_training_that_fails_is_a_row_with_its_error(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "ensure_builtin", lambda *_: tmp_path)
    monkeypatch.setattr(peers, "measured_program", lambda *_, **__: Done(1, "", "Traceback\nValueError: a | b\n", 1.0, 1.0))
    assert peers._peer(Path(sys.executable), tmp_path / "run", 1e-3).missing == "failed: ValueError: a / b"


def test_a_script_is_measured_as_a_process_of_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:], __name__)\nsys.exit(3)\n")
    done = measured_program(tmp_path, str(script), "one", 2)
    assert (done.code, done.said) == (3, "['one', '2'] __main__\n")
    assert done.megabytes > 1
