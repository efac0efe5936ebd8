"""What `diffuse` says without a command, and that both ways to start it are the same."""

import subprocess
import sys

from tests.commands import HANG


def test_help_and_version(diffuse):
    assert "init-prompt" in diffuse("--help").stdout
    assert diffuse("--version").stdout.startswith("diffuse 0.")


def test_without_arguments_it_says_what_to_type_first_and_ends_as_wrong_usage_does(diffuse):
    done = diffuse()
    assert (done.returncode, done.stdout) == (2, "")
    assert "First steps:\n" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_python_m_diffusecli_is_the_same_command(diffuse):
    def module(*words):
        return subprocess.run(
            [sys.executable, "-m", "diffusecli", *words], capture_output=True, text=True, check=False, timeout=HANG
        )

    assert module("--version").stdout == diffuse("--version").stdout
    wrong, known = module("validate", "nowhere.json"), diffuse("validate", "nowhere.json")
    assert (wrong.returncode, wrong.stderr) == (known.returncode, known.stderr)
