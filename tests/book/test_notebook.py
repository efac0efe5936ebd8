"""The notebook of the book runs from top to bottom, on a tiny model in place of the built-in one."""

import json
import re

import pytest

from diffusecli.prompts.config import Config
from tests import ROOT
from tests.commands import HANG

NOTEBOOK = ROOT / "docs" / "tutorials" / "notebook.ipynb"
MODEL = 'MODEL = "smollm2-135m-instruct"'
AS_ON_A_HOSTED_RUNTIME = """
import importlib.util

find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "diffusecli" else find_spec(name, *package)
get_ipython().register_magic_function(lambda words: print("pip", words), "line", "pip")
"""
"""diffuse seems to be missing, and pip only says what it would install."""


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tiny_model_folder, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra `dev`")
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra `dev`")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = (cell for cell in notebook.cells if MODEL in cell.source)
    cell.source = cell.source.replace(MODEL, f"MODEL = {str(tiny_model_folder)!r}")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(AS_ON_A_HOSTED_RUNTIME))
    (tmp_path / "work").mkdir()
    nbclient.NotebookClient(notebook, timeout=HANG, resources={"metadata": {"path": str(tmp_path / "work")}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in shown if output.output_type == "error"] == []
    assert shown[0]["text"] == "pip install --quiet diffuse_lm-*.whl\n"
    tables = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert [re.findall(r"<th>(\w+)</th>", table)[0] for table in tables[:3]] == ["target", "prompt", "prompt"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["results"]


def test_no_cell_chooses_a_device_so_that_a_gpu_is_used_if_there_is_one():
    source = "".join(line for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] for line in cell["source"])
    assert re.findall(r"\b(?:device|cuda|mps|cpu|precision)\b", source) == []
    assert Config.model_fields["device"].default == "auto"


def test_the_notebook_holds_its_outputs_and_nothing_of_the_machine_it_ran_on():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < 100_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert re.findall(r"/(?:root|home|Users|tmp|work|usr|opt)\b[^\"]*", text) == []
    assert '"stderr"' not in text
