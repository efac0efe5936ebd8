"""`--quiet` and `--verbose` of every command: what they print to stderr, and that results stay."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffusecli.cli import printing
from diffusecli.cli.app import app


@pytest.fixture(autouse=True)
def as_before():
    yield
    printing.show(quiet=False, verbose=False)


@pytest.fixture
def config(tiny_model_folder, prompt_file, tmp_path):
    prompt = prompt_file("p.json", targets=["{a}", "{b}"])
    file = tmp_path / "c.yaml"
    file.write_text(
        f"model: {tiny_model_folder}\ntrain_prompts: [{prompt}]\noutput_dir: run\ndevice: cpu\nretain: false\nalg_config: {{n_iters: 2}}\n"
    )
    return file


def test_every_command_has_both():
    import typer

    commands = typer.main.get_command(app).commands
    assert len(commands) == 6
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"-q", "--quiet", "-v", "--verbose"} <= options, name


@pytest.mark.parametrize("words", [("train", "c.yaml", "-q"), ("-q", "train", "c.yaml")])
def test_quiet_leaves_results_and_warnings(config, in_process, words):
    done = in_process(*words, cwd=config.parent)
    assert done.returncode == 0, done.stderr
    assert "exact KL" in done.stdout
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["warning"]
    assert "is far from its target" in done.stderr


def test_internal_checks_are_printed_only_if_asked_for(config, in_process):
    plain = in_process("train", "c.yaml", cwd=config.parent)
    assert "1 prompt, 2 targets\n" in plain.stderr
    assert "check: " not in plain.stderr
    assert "iteration 1/2" in plain.stderr
    whole = in_process("train", "c.yaml", "--force", "-v", cwd=config.parent)
    assert "check: packed: log-probabilities agree with rows to" in " ".join(whole.stderr.split())


def test_the_preview_of_a_prompt_is_no_warning(in_process):
    done = in_process("init-prompt", "--uniform", "1", "3", "-q")
    assert '"{1}"' in done.stdout
    assert done.stderr == ""


def test_both_together_are_refused(in_process):
    done = in_process("init-prompt", "--uniform", "1", "3", "-q", "-v")
    assert done.returncode == 2
    assert "--quiet and --verbose exclude each other" in done.stderr


def test_errors_are_printed_in_any_case(in_process):
    done = in_process("train", "none.yaml", "-q")
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_quiet_leaves_errors_of_validate(in_process, tmp_path):
    (tmp_path / "b.json").write_text('{"request": "x", "targets": ["a", "a"]}')
    done = in_process("validate", "b.json", "-q")
    assert done.returncode in (1, 2)
    assert "error: b.json:1" in done.stderr


def test_verbose_may_come_before_the_command(config, in_process):
    done = in_process("-v", "train", "c.yaml", cwd=config.parent)
    assert "check: packed" in done.stderr


def on_a_terminal(words, folder):
    """What a command writes to a terminal of 100 columns."""
    import pty

    master, slave = pty.openpty()
    command = Path(sys.executable).with_name("diffuse")
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    running = subprocess.Popen([command, *words], cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    read = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the command has ended
            break
        if not part:
            break
        read += part
    os.close(master)
    running.wait()
    return read.decode()


def test_notices_on_a_terminal_are_whole_coloured_lines_above_the_progress(config):
    lines = on_a_terminal(("train", "c.yaml", "-v"), config.parent).splitlines()
    codes = r"(\x1b\[[0-9;?]*[A-Za-z]|\r)*"
    assert any(re.fullmatch(rf"{codes}\x1b\[2m1 prompt, 2 targets\s*\x1b\[0m\s*", line) for line in lines), lines[:12]
    assert any("check: packed: log-probabilities agree" in line and "1 prompt" not in line for line in lines)


def test_quiet_on_a_terminal_shows_results_and_warnings_only(config):
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_a_terminal(("train", "c.yaml", "-q"), config.parent))
    results, warning = shown.split("warning: ")  # whose lines end at words
    starts = [line.split(" ")[0].rpartition("/")[2] for line in results.replace("\r", "\n").splitlines() if line.strip()]
    assert sorted(set(starts)) == ["p.json:", "run:"]
    assert all(len(line) <= 100 or line.startswith("`") for line in warning.splitlines())  # commands stay whole
    assert "in a new run: `diffuse train run/config.yaml --set lora.r=" in " ".join(warning.split())
