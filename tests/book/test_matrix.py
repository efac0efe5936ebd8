"""The table of docs/models.md holds what a run has shown and nothing else."""

import os
import subprocess
import sys

import pytest

from tests import ROOT
from tests.book.matrix import END, START, cell_text, read_table, with_table
from tests.commands import HANG

CONFTEST = """
from tests.conftest import pytest_addoption, pytest_configure
"""
TESTS = """
import pytest

@pytest.mark.matrix("template")
@pytest.mark.parametrize("family", ["Good", "Bad", "Absent"])
@pytest.mark.parametrize("eos", [True, False])
def test_text(family, eos):
    if family == "Absent":
        pytest.skip("no such | package")
    assert family == "Good" or eos

@pytest.mark.slow
@pytest.mark.matrix("packed", "LoRA")
@pytest.mark.parametrize("architecture", ["Llama"])
def test_training(architecture, record_property):
    record_property("packed", "rows: a window")
"""
PAGE = f"before\n{START}\n{END}\nafter\n"


@pytest.fixture
def run(tmp_path):
    """Run pytest on the tests above in a project of their own; its page is `docs/models.md`."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "models.md").write_text(PAGE)
    (tmp_path / "these").mkdir()
    (tmp_path / "these" / "conftest.py").write_text(CONFTEST)
    (tmp_path / "these" / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = these\nmarkers =\n    matrix\n    slow\n")

    def start(*words):
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
            | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # each plugin that is installed costs its import
        )  # fmt: skip
        return done.returncode, done.stdout, (tmp_path / "docs" / "models.md").read_text()

    return start


@pytest.fixture(scope="session")
def first_page(tmp_path_factory):
    """Where the page that a whole run writes is kept once there has been one."""
    return tmp_path_factory.mktemp("matrix") / "models.md"


@pytest.fixture
def written(run, first_page, tmp_path):
    """The page of a whole run, in place."""
    page = tmp_path / "docs" / "models.md"
    if not first_page.exists():
        run("--write-matrix")
        first_page.write_text(page.read_text())
    page.write_text(first_page.read_text())
    return page.read_text()


ALONE_AND_SHARED = pytest.mark.parametrize("processes", [[], ["-p", "xdist", "-n", "2"]], ids=["one process", "pytest-xdist"])


def edit(folder, old, new):
    page = folder / "docs" / "models.md"
    assert old in page.read_text()
    page.write_text(page.read_text().replace(old, new))


@pytest.mark.slow
@ALONE_AND_SHARED
def test_a_cell_has_a_tick_where_all_its_tests_passed_and_only_there(run, written, processes):
    page = run("--write-matrix", *processes)[2] if processes else written
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert read_table(page) == {
        ("Good", "template"): "✓", ("Bad", "template"): "fails", ("Absent", "template"): "skipped: no such | package",
        ("Llama", "packed"): "rows: a window", ("Llama", "LoRA"): "✓",
    }  # fmt: skip


@pytest.mark.slow
@ALONE_AND_SHARED
def test_a_page_that_says_otherwise_than_the_tests_fails_the_run(run, written, processes, tmp_path):
    only = ["-k", "Good or training", *processes]
    assert run(*only)[0] == 0
    edit(tmp_path, "| Good | ✓ |", "| Good | – |")
    code, output, _ = run(*only)
    assert code == 1
    assert "Good / template: the page says '–', the tests say '✓'" in output


@pytest.mark.slow
def test_a_tick_without_a_test_fails_a_run_of_everything_but_no_other(run, written, tmp_path):
    edit(tmp_path, "| Good | ✓ | – |", "| Good | ✓ | ✓ |")
    assert run("-k", "Good", "these")[0] == 0
    code, output, _ = run("-k", "Good")
    assert code == 1
    assert "Good / terminator: the page says '✓', there is no such test" in output
    assert ("Good", "terminator") not in read_table(run("--write-matrix")[2])


@pytest.mark.slow
def test_what_a_run_leaves_out_stays_as_it_was(run, written):
    assert run("--write-matrix", "-m", "not slow")[2] == written
    _, output, page = run("--write-matrix", "-k", "True and Bad")
    assert "1 passed" in output
    assert page == written  # half of a cell is not the cell


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        (["✓", "✓"], "✓"), (["✓", "fails", "rows"], "fails"), (["skipped: no npm", "fails"], "fails"),
        (["✓", "skipped: no npm"], "skipped: no npm"), (["✓", "rows: a window", "rows: a window"], "rows: a window"),
    ],
)  # fmt: skip
def test_a_cell_shows_the_worst_of_its_tests(verdicts, text):
    assert cell_text(verdicts) == text


def test_the_table_is_read_as_it_was_written_chat_families_first():
    cells = {("Zeta", "template"): "✓", ("alpha", "template"): "✓", ("Aaa", "packed"): "rows: a | b"}
    page = with_table(PAGE, cells)
    assert read_table(page) == cells
    assert page.index("| alpha |") < page.index("| Zeta |") < page.index("| Aaa |")
    assert with_table(page, cells) == page
