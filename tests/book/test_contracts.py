"""The contracts of the wings (`[tool.importlinter]` in pyproject.toml) hold, and each of them can fail."""

import re
import shutil
import subprocess
import sys

import pytest

from tests import ROOT
from tests.commands import HANG


def lint(folder):
    """What `make lint` runs, in a folder that holds the package and its pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"], cwd=folder,
        capture_output=True, text=True, check=False, timeout=HANG, env={"PYTHONPATH": str(folder), "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture
def house(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "diffusecli", tmp_path / "diffusecli", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("files/text.py", "from diffusecli.prompts.prompt import Prompt", "A wing imports only from those below it"),
        ("runs/run_dir.py", "def late():\n    from diffusecli.report.parts import bar", "A wing imports only from those below it"),
        (
            "training/loss.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import diffusecli.cli.app",
            "A wing imports only from",
        ),
        ("verbs/sample.py", "from diffusecli.verbs.train import train", "Verbs do not import each other"),
        ("prompts/prompt.py", "def late():\n    import torch", "No torch below models"),
        ("system/exits.py", "from diffusecli.system.errors import InputError", "do not import each other in a circle"),
        ("nowhere.py", "", "A wing imports only from those below it"),
    ],
)
def test_a_change_that_breaks_a_contract_fails(house, file, line, broken):
    path = house / "diffusecli" / file
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    done = lint(house)
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if broken in line and " BROKEN" in line], done.stdout


def test_contributing_names_every_file_of_every_wing_once():
    """In the table of its wing, so that "one line a file" stays true."""
    inside = ROOT / "diffusecli"
    wings = sorted(path.parent.relative_to(inside).as_posix() for path in inside.glob("*/**/__init__.py"))
    tables = re.findall(r"\| `([\w/]+)/` \| \|\n\|---\|---\|\n((?:\| `\w+\.py` \|.*\n)+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert sorted(wing for wing, _ in tables) == wings
    for wing, table in tables:
        files = [path.stem for path in (inside / wing).glob("*.py") if path.stem != "__init__"]
        assert sorted(re.findall(r"^\| `(\w+)\.py`", table, re.MULTILINE)) == sorted(files), wing
