"""An output's name never promises another format."""

import json
from pathlib import Path

import pytest

from diffusecli.files.endings import require_ending
from diffusecli.runs.samples import format_of, read_samples
from diffusecli.system.errors import InputError
from diffusecli.verbs.sample import Wanted, resolve


@pytest.mark.parametrize("name", ["s.xlsx", "s.txt", "s.parquet", "s.json.gz", "s.yaml", "s.TSV", "s.ndjson", "s.html"])
def test_samples_are_not_named_as_what_they_are_not(name, tmp_path):
    with pytest.raises(InputError, match=r"JSON, JSON lines or CSV, not as \..*. Use the extension \.json, \.jsonl or \.csv"):
        resolve(Wanted(model="m", requests=("x",), output=Path(name)), tmp_path)


@pytest.mark.parametrize(
    ("name", "form"), [("s.json", "csv"), ("s", "csv"), ("s", "jsonl"), ("s.csv", "json"), ("s.jsonl", "counts")]
)
def test_a_format_and_an_ending_that_differ_are_refused(name, form, tmp_path):
    with pytest.raises(InputError, match=f"the extension does not match --format {form}. Use"):
        resolve(Wanted(model="m", requests=("x",), output=Path(name), form=form), tmp_path)


@pytest.mark.parametrize("name", ["s", "t0.5", "s.out", "run.v2", "s.json", "s.JSON"])
def test_other_names_are_json(name, tmp_path):
    assert resolve(Wanted(model="m", requests=("x",), output=Path(name)), tmp_path).form == "json"


def test_endings_in_capitals_are_endings(tmp_path):
    assert [format_of(Path(name)) for name in ("s.CSV", "s.JSONL", "s.Json")] == ["csv", "jsonl", "json"]
    (tmp_path / "s.CSV").write_text("prompt,text,count\np,a,2\n")
    (tmp_path / "s.JSONL").write_text('{"prompt": "p", "text": "a"}\n' * 2)
    assert read_samples(tmp_path / "s.CSV") == read_samples(tmp_path / "s.JSONL") == {"p": {"a": 2}}


WRITES = {
    "--html report.pdf": (["evaluate", "results/r1", "--html", "report.pdf"], ".html or .htm"),
    "--html report.svg": (["evaluate", "results/r1", "--html", "report.svg"], ".html or .htm"),
    "--plots charts.png": (["evaluate", "results/r1", "--plots", "charts.png"], "Choose a folder name without .png"),
    "-o x.yaml": (["init-prompt", "--binomial", "4", ".5", "-o", "x.yaml"], "Use the extension .json"),
    "-o x.csv": (["init-prompt", "--binomial", "4", ".5", "-o", "x.csv"], "Use the extension .json"),
    "-o groups.json": (["init-prompt", "--from", "t.csv", "--column", "a", "--count", "--group-by", "b", "--request", "{b}?", "-o", "groups.json"],
                       "Choose a folder name without .json"),
    "-o m.gguf": (["export", "results/r1", "-o", "m.gguf"], "Choose a folder name without .gguf"),
    "-o m.safetensors": (["export", "results/r1", "-o", "m.safetensors"], "Choose a folder name without .safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("option", WRITES)
def test_no_output_is_named_as_what_it_is_not(in_process, trained, tmp_path, option):
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n")
    words, remedy = WRITES[option]
    before = sorted(tmp_path.rglob("*"))
    done = in_process(*words)
    assert (done.returncode, remedy in done.stderr, option in done.stderr) == (2, True, True), done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["SmolLM2-1.7B", "m-v1.0", "qwen2.5", "numbers"])
def test_versions_in_names_are_no_endings(name):
    require_ending(Path(name), "-o", "a folder")
    with pytest.raises(InputError, match=f"{name}.gguf"):
        require_ending(Path(f"{name}.gguf"), "-o", "a folder")


def test_prompts_without_an_ending_are_written(in_process, tmp_path):
    assert in_process("init-prompt", "--binomial", "4", ".5", "-o", "x").returncode == 0
    assert json.loads((tmp_path / "x").read_text())["targets"]
