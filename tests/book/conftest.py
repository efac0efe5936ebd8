"""What the tests of the study share."""

import pytest

from benchmarks.study import collect, page


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder, in which the study runs and leaves its tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collect, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    return tmp_path
