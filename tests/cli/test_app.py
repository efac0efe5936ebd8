"""What `diffuse` says without a command, and that both ways to start it are the same."""

import re
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


def test_the_help_has_options_in_groups_and_each_option_once(in_process):
    text = in_process("init-prompt", "--help").stdout
    titles = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert titles == [
        "Options", "Distributions", "Distribution from a file", "Layout of a table", "Request", "Paraphrases of the request", "Form of the answer", "Output",
    ]  # fmt: skip
    of = {title: text.split(f"\n{title}:\n")[1].split("\n\n")[0] for title in titles}
    assert all(
        option in of[title]
        for title, option in zip(
            titles, ("--list", "--uniform", "--from", "--sheet", "--request", "--paraphrase", "--wrap", "--output"), strict=True
        )
    )
    names = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert re.findall(r"^(\w.*):$", in_process("train", "--help").stdout, re.MULTILINE) == ["Arguments", "Options"]
