"""Errors as one message and an exit code; what the streams are at the other end."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from diffusecli.cli import boundary
from diffusecli.system.errors import FailedGates, InputError, InterruptedRun, MachineError
from tests.cli.configs import config_text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["validate", "nowhere.json"], 2, "nowhere.json: does not exist"),
        (["train", "nowhere.yaml"], 2, "nowhere.yaml: does not exist"),
        (["train", "."], 2, ".: is a folder. Name a file in it"),
        (["train", "broken.yaml"], 2, "broken.yaml:1:2: invalid YAML"),
        (["train", "unknown.yaml"], 2, "unknown key 'modle'. Did you mean 'model'?"),
        (["train", "no-prompt.yaml"], 2, "no-prompt.yaml:2:17: missing.json does not exist"),
        (["train", "no-model.yaml"], 2, "unknown model 'smollm2-135m'. Did you mean 'smollm2-135m-instruct'? (or use a folder"),
        (["sample", "--mode", "tuned"], 2, "--mode tuned: must be one of untuned, lora"),
        (["sample"], 2, "results: contains no run to sample. Train one"),
        (["sample", "--temperature", "0"], 2, "--temperature 0: must be above 0"),
        (["evaluate", "."], 2, ".: contains no run"),
        (["evaluate"], 2, "Missing argument"),
        (["init-prompt"], 2, "no distribution given. Name one"),
        (["init-prompt", "--binomial", "0", "0.5"], 2, "N must be 1 or more"),
        (["init-prompt", "--binomial", "10"], 2, "--binomial needs 2 values (N P) and has 1. See `"),
        (
            ["init-prompt", "--binomial", "10", "-o", "x.json"],
            2,
            "--binomial needs 2 values (N P) and has 1. See `",
        ),
        (["init-prompt", "--uniform"], 2, "--uniform needs 2 values (LO HI) and has 0. See `"),
        (["init-prompt", "--top"], 2, "--top needs a value (K). See `"),
        (["sample", "-n"], 2, "-n needs a value. See `"),
        (["evaluate", "--sort"], 2, "--sort needs a value (weight|residual|target). See `"),
        (["train", "--force=1"], 2, "Option '--force' does not take a value. See `"),
        (["nonsense"], 2, "No such command 'nonsense'"),
    ],
)
def test_mistakes_are_one_sentence_on_stderr_with_their_exit_code(in_process, prompt_file, tmp_path, words, code, message):
    prompt_file("p.json")
    (tmp_path / "broken.yaml").write_text("{")
    (tmp_path / "unknown.yaml").write_text("modle: x\noutput_dir: o\n")
    (tmp_path / "no-prompt.yaml").write_text(config_text("owner/m", "missing.json"))
    (tmp_path / "no-model.yaml").write_text(config_text("smollm2-135m", "p.json"))
    before = sorted(tmp_path.rglob("*"))
    done = in_process(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert not message.endswith("See `") or done.stderr.endswith(f"diffuse {words[0]} --help`\n")
    assert "Traceback" not in done.stderr
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []


@pytest.fixture
def ended(monkeypatch, capsys):
    """Exit code and message of a command whose body raises the error; the standard output that was given up is counted."""
    given_up = []
    monkeypatch.setattr(boundary, "_forget_stdout", lambda: given_up.append(1))
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def run(error):
        def body():
            raise error

        code = 0
        try:
            boundary.guarded(body)()
        except typer.Exit as stopped:
            code = stopped.exit_code
        return code, capsys.readouterr().err, len(given_up)

    return run


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "code", "message", "given_up"),
    [
        (InputError("x: is wrong"), 2, "diffuse: x: is wrong\n", 0),
        (MachineError("x: is full"), 3, "diffuse: x: is full\n", 0),
        (FailedGates(["a", "b"]), 1, "diffuse: failed: a; b\n", 0),
        (InterruptedRun("kept"), 130, "diffuse: kept\n", 0),
        (KeyboardInterrupt(), 130, "diffuse: interrupted. Run the same command again\n", 0),
        (BrokenPipeError(), 130, "", 1),
        (MemoryError(), 3, "diffuse: this machine has too little memory. Ask for less at once\n", 0),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), 2, "diffuse: a.txt: No such file. Check the path and the disk\n", 0),
        (OSError(errno.EIO, "Input/output error", "a.txt"), 3, "diffuse: a.txt: Input/output error. Check the path and the disk\n", 0),
        (FULL, 3, "diffuse: cannot write to standard output: No space left on device. Free some space\n", 1),
        (TimeoutError("slow"), 3, "diffuse: TimeoutError: slow. Fix the cause and run the same command again\n", 0),
    ],
)  # fmt: skip
def test_each_kind_of_error_has_its_code_and_its_message(ended, error, code, message, given_up):
    assert ended(error) == (code, message, given_up)


def test_a_bug_is_not_caught(ended):
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError())


@pytest.mark.parametrize(
    ("error", "main", "local_main", "prints"),
    [
        (InputError("x"), False, False, False),
        (InputError("x"), False, True, True),
        (InputError("x"), True, True, True),
        (MachineError("x"), False, False, True),
        (InterruptedRun("x"), False, True, False),
        (KeyboardInterrupt(), False, True, False),
    ],
)
def test_of_several_processes_the_first_prints_and_each_exits_with_the_code(monkeypatch, ended, error, main, local_main, prints):
    code, message, _ = ended(error)
    monkeypatch.setattr(boundary, "MAIN_PROCESS", main)
    monkeypatch.setattr(boundary, "LOCAL_MAIN_PROCESS", local_main)
    assert ended(error) == (code, message if prints else "", 0)


def test_an_error_that_all_processes_share_is_printed_once(monkeypatch, ended):
    error = InputError("x")
    error.shared = True
    monkeypatch.setattr(boundary, "MAIN_PROCESS", False)
    assert ended(error) == (2, "", 0)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"), [("validate p.json", 0), ("validate broken.json", 1), ("init-prompt --dice 2d6 -o dice.json", 0)]
)
def test_closed_streams_change_no_exit_code_and_no_file(prompt_file, tmp_path, words, code, closed):
    prompt_file("p.json")
    (tmp_path / "broken.json").write_text("{")
    command = f"{Path(sys.executable).with_name('diffuse')} {words} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if "-o" in words:
        assert json.loads((tmp_path / "dice.json").read_text())["targets"]


def test_a_pipe_in_place_of_a_file_is_told_and_a_shells_own_is_read(prompt_file, tmp_path, in_process):
    prompt_file("p.json")
    os.mkfifo(tmp_path / "pipe.json")
    done = in_process("validate", "pipe.json")
    assert done.returncode == 1
    assert "it is a pipe, not a file" in done.stderr
    command = f"{Path(sys.executable).with_name('diffuse')} validate <(cat p.json)"
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False).returncode in (0, 2)


def test_an_interruption_that_a_destructor_swallows_comes_again():
    """Python ignores errors in `__del__`, and an interruption that arrives there is one."""
    script = (
        "import time, typer\n"
        "from diffusecli.cli import boundary\n"
        "app = typer.Typer()\n"
        "class Swallows:\n"
        "    def __del__(self):\n"
        "        raise KeyboardInterrupt\n"
        "def wait():\n"
        "    Swallows()\n"
        "    time.sleep(60)\n"
        "app.command()(boundary.guarded(wait))\n"
        "boundary.start(app)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "diffuse: interrupted. Run the same command again"
