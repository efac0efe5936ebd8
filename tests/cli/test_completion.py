"""What shells complete, by the protocol that each of them speaks with `diffuse`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusecli.cli.options import CHOICES
from tests import ROOT
from tests.commands import HANG

LINES = [
    ("diffuse tr", {"train"}),
    ("diffuse e", {"export", "evaluate"}),
    ("diffuse sample --mo", {"--mode", "--model"}),
    ("diffuse train c.yaml --dry", {"--dry-run"}),
    ("diffuse init-prompt --bino", {"--binomial"}),
    ("diffuse sample --mode ", {"untuned", "lora"}),
    ("diffuse sample --ask s", {"string-seed", "seeded"}),
    ("diffuse sample --format j", {"json", "jsonl"}),
    ("diffuse sample --engine c", {"counting"}),
    ("diffuse export r --precision b", {"bf16"}),
    ("diffuse export r --gguf q", {"q8_0"}),
    ("diffuse evaluate r --sort ", {"weight", "residual", "target"}),
    ("diffuse validate --schema ev", {"evaluation"}),
]


def asked_by(shell, line):
    """How each shell hands over what stands on its command line."""
    if shell == "bash":
        return {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}


def offered(shell, told):
    """The words of an answer, without what zsh and fish show beside them."""
    if shell == "zsh":
        return set(re.findall(r'"([^"]+)":"', told)) or set(re.findall(r'"([^":]+)"', told))
    return {line.partition("\t")[0] for line in told.splitlines()}


@pytest.mark.parametrize(
    ("shell", "line", "words"),
    [*(("bash", *case) for case in LINES), *((shell, *LINES[i]) for shell in ("zsh", "fish") for i in (0, 2, 5))],
)
def test_each_shell_is_offered_commands_options_and_their_words(diffuse, shell, line, words):
    done = diffuse(_DIFFUSE_COMPLETE=f"complete_{shell}", **asked_by(shell, line))
    assert (done.returncode, done.stderr) == (0, "")
    assert offered(shell, done.stdout) == words


def test_every_option_of_a_few_words_is_completed_and_the_page_names_it():
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    tried = {re.search(r"(--\w+) \w*$", line)[1] for line, _ in LINES if re.search(r"(--\w+) \w*$", line)}
    assert tried == set(CHOICES)
    assert set(re.findall(r"`(--\w+)`", page.partition("## Completion")[2].partition("```")[0])) == tried


def test_bash_completes_by_the_script_it_is_given(diffuse):
    script = diffuse("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    ask = f'{script}\nCOMP_WORDS=(diffuse sample --mode un) COMP_CWORD=3\n_diffuse_completion diffuse\necho "${{COMPREPLY[@]}}"'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ask], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}, timeout=HANG
    )
    assert done.stdout == "untuned\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_one_that_it_can_read(diffuse, tmp_path, shell):
    script = diffuse("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    assert f"complete_{shell}" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script)
    assert subprocess.run([shell, "-n", tmp_path / "script"], check=False, timeout=HANG).returncode == 0


@pytest.mark.parametrize(
    ("shell", "files"),
    [
        ("bash", [".bash_completions/diffuse.sh", ".bashrc"]),
        ("zsh", [".zfunc/_diffuse", ".zshrc"]),
        ("fish", [".config/fish/completions/diffuse.fish"]),
    ],
)
def test_install_writes_the_files_that_the_page_names_and_no_others(diffuse, tmp_path, shell, files):
    home = tmp_path / "home"
    home.mkdir()
    done = diffuse("--install-completion", shell, HOME=str(home), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == sorted(files)
    row = next(
        line for line in (ROOT / "docs/install.md").read_text(encoding="utf-8").splitlines() if line.startswith(f"| {shell} |")
    )
    assert all(f"`~/{name}`" in row for name in files)
