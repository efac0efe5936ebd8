"""The table of docs/models.md, made by the test run: what has been tested on which model family or architecture.

A test says with `@pytest.mark.matrix("template")` which column it is about; the row is what it is parametrised by as `family`,
`architecture` or `name`. A column may show a word in place of the tick: `record_property("packed", "rows: …")`. Every run compares
the cells it has tested whole with the page and fails where they differ; `pytest --write-matrix` writes them. Works under pytest-xdist:
what a test is about travels with its reports. Knows nothing of models.
"""

from collections import Counter, defaultdict
from importlib.metadata import version

import pytest

COLUMNS = ("template", "terminator", "packed", "LoRA", "sampling", "merge")
PASSED, FAILED, UNTESTED = "✓", "fails", "–"
START, END = "<!-- matrix: written by pytest --write-matrix -->", "<!-- end of matrix -->"
_ROW_PARAMETERS = ("family", "architecture", "name")
_MADE_WITH = ("torch", "transformers", "peft")


def cells_of(item):
    """The cells (row, column) that a test is about."""
    columns = [column for marker in item.iter_markers("matrix") for column in marker.args]
    if unknown := set(columns) - set(COLUMNS):
        raise pytest.UsageError(f"{item.nodeid}: the matrix has no column {sorted(unknown)}, only {list(COLUMNS)}")
    parameters = item.callspec.params if columns and hasattr(item, "callspec") else {}
    rows = [str(parameters[name]) for name in _ROW_PARAMETERS if name in parameters]
    if columns and not rows:
        raise pytest.UsageError(f"{item.nodeid}: a row of the matrix is parametrised by one of {list(_ROW_PARAMETERS)}")
    return [(rows[0], column) for column in columns]


def cell_text(verdicts):
    """What a cell shows for the verdicts of its tests: the worst of them, the words that were recorded, or a tick."""
    skipped = [verdict for verdict in verdicts if verdict.startswith("skipped")]
    words = [verdict for verdict in dict.fromkeys(verdicts) if verdict != PASSED]
    return FAILED if FAILED in verdicts else skipped[0] if skipped else "; ".join(words) or PASSED


def read_table(page):
    """The cells of a page; those that say nothing are left out."""
    lines = [line for line in page.partition(START)[2].partition(END)[0].splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in lines]
    columns = table[0][1:] if table else []
    return {
        (row[0], column): text.replace("¦", "|")
        for row in table[2:]
        for column, text in zip(columns, row[1:], strict=True)
        if text != UNTESTED
    }


def with_table(page, cells):
    """The page with these cells: chat families (what has a template) first, then architectures."""
    rows = sorted({row for row, _ in cells}, key=lambda row: ((row, "template") not in cells, row.casefold()))
    lines = [["family or architecture", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    lines += [[row, *(cells.get((row, column), UNTESTED).replace("|", "\\|") for column in COLUMNS)] for row in rows]
    made_with = ", ".join(f"{package} {version(package)}" for package in _MADE_WITH)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{table}\n\nMade with {made_with}.\n\n{END}{rest.partition(END)[2]}"


class Matrix:
    """The pytest plugin."""

    def __init__(self, config):
        self.config = config
        self.page = config.rootpath / "docs" / "models.md"
        self.known = set()  # cells that collected tests are about, whether these run or not
        self.sizes = {}  # how many tests a cell has
        self.verdicts = defaultdict(dict)  # cell -> test -> what it came to
        self.problems = []

    @pytest.hookimpl(tryfirst=True)  # before tests are deselected: a cell is tested when all its tests have run
    def pytest_collection_modifyitems(self, items):
        about = {item: cells for item in items if (cells := cells_of(item))}
        sizes, files = Counter(cell for cells in about.values() for cell in cells), defaultdict(set)
        for item, cells in about.items():
            item.user_properties.append(("matrix", [[*cell, sizes[cell]] for cell in cells]))
            for cell in cells:
                files[cell].add(item.path.name)
        # else a run of one of the files would take its part for the whole
        if scattered := next((cell for cell, names in files.items() if len(names) > 1), None):
            raise pytest.UsageError(f"the matrix's cell {scattered} has tests in {sorted(files[scattered])}: keep them in one file")
        self.known |= set(sizes)

    def pytest_runtest_logreport(self, report):
        told = dict(report.user_properties)
        for row, column, size in told.get("matrix", []):
            verdicts = self.verdicts[row, column]
            self.sizes[row, column] = size
            if report.failed:
                verdicts[report.nodeid] = FAILED
            elif report.skipped:
                reason = getattr(report, "wasxfail", None) or report.longrepr[2].removeprefix("Skipped: ")
                verdicts[report.nodeid] = f"skipped: {reason}"
            elif report.when == "call":
                verdicts[report.nodeid] = told.get(column, PASSED)

    def pytest_sessionfinish(self, session, exitstatus):
        if hasattr(self.config, "workeroutput"):  # a process of pytest-xdist: the one that started it will tell
            self.config.workeroutput["matrix"] = sorted(self.known)
            return
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or any("::" in word for word in self.config.args):
            return
        page = self.page.read_text(encoding="utf-8") if self.page.is_file() else ""
        old, found = read_table(page), self._tested()
        gone = set(old) - self.known if self._collected_all() else set()
        if self.config.getoption("write_matrix"):
            kept = {cell: text for cell, text in old.items() if cell not in gone}
            self.page.write_text(with_table(page, {**kept, **found}), encoding="utf-8")
            return
        self.problems = [
            f"{' / '.join(cell)}: the page says {old.get(cell, UNTESTED)!r}, the tests say {text!r}"
            for cell, text in found.items()
            if not text.startswith(("skipped", FAILED)) and old.get(cell, UNTESTED) != text
        ] + [f"{' / '.join(cell)}: the page says {old[cell]!r}, there is no such test" for cell in sorted(gone)]
        if self.problems and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_testnodedown(self, node):
        self.known |= {tuple(cell) for cell in getattr(node, "workeroutput", {}).get("matrix", [])}

    def pytest_terminal_summary(self, terminalreporter):
        if self.problems:
            terminalreporter.section(f"{self.page.name} is not in step with the tests, run `pytest --write-matrix`", red=True)
            for problem in self.problems:
                terminalreporter.line(problem)

    def _tested(self):
        """Cells all of whose tests have run, or were skipped."""
        return {
            cell: cell_text(list(verdicts.values()))
            for cell, verdicts in self.verdicts.items()
            if len(verdicts) == self.sizes[cell]
        }

    def _collected_all(self):
        """Whether no file was left out, so that a cell without a test is known to have none."""
        options = self.config.option
        everywhere = self.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        return everywhere and bool(self.known) and not (options.ignore or options.ignore_glob or getattr(options, "lf", False))
