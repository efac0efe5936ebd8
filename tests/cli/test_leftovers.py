"""What fails before it has written anything leaves nothing behind, and an output's name never promises another format."""

import json
import shutil
from pathlib import Path

import pytest

from diffusecli.files.endings import require_ending
from diffusecli.files.locks import made_folder, only_writer
from diffusecli.files.writing import require_writable, write_text
from diffusecli.runs.samples import format_of, read_samples
from diffusecli.system.errors import InputError
from diffusecli.verbs.sample import Wanted, resolve


@pytest.fixture
def place(trained, tmp_path):
    """A run and configs that cannot be worked with, in tmp_path."""
    (tmp_path / "c.yaml").write_text(
        "model: owner/name\ntrain_prompts: [p.json]\ntest_prompts: [p.json]\noutput_dir: new/deep/run\n"
    )
    shutil.copy(tmp_path / "c.yaml", tmp_path / "long.yaml")
    return tmp_path


def everything(folder):
    return sorted(folder.rglob("*"))


SERVER = ["--engine", "openai", "--base-url", "http://127.0.0.1:9/v1", "--tries", "1"]
FAILURES = {
    "train": ["train", "c.yaml"],
    "an unknown device": ["train", "c.yaml", "--set", "device=nothing", "--set", "model=m"],
    "a tracker": ["train", "c.yaml", "--set", "tracker=aim"],
    "no such adapter": ["train", "c.yaml", "--set", "load_model=true", "--set", "ckpt_dir=none"],
    "sample a config": ["sample", "c.yaml", "--mode", "untuned"],
    "sample a model": ["sample", "--model", "owner/name", "--request", "x"],
    "sample into": ["sample", "--model", "owner/name", "--request", "x", "-o", "new/deep/s.json"],
    "a server": ["sample", *SERVER, "--model", "m", "--request", "x"],
    "a server for a run": ["sample", "results/r1", *SERVER],
    "export": ["export", "results/r1", "-o", "new/deep/m", "--model", "owner/name"],
    "evaluate": ["evaluate", "results/r1", "--html", "new/deep/r.html"],
    "plots": ["evaluate", "results/r1", "--plots", "new/deep"],
    "init-prompt": ["init-prompt", "--binomial", "4", "7", "-o", "new/deep/x.json"],
    "groups": ["init-prompt", "--from", "none.csv", "--group-by", "a", "-o", "new/deep"],
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_before_it_wrote_anything_leaves_nothing(in_process, place, name):
    before = everything(place)
    done = in_process(*FAILURES[name], HF_HUB_OFFLINE="1", HF_HOME=str(place.parent / "hf"))
    assert (done.returncode in (2, 3), "Traceback" in done.stderr) == (True, False), done.stderr
    assert everything(place) == before


def test_folders_that_were_there_stay(in_process, place):
    (place / "new" / "deep" / "run").mkdir(parents=True)
    assert in_process("train", "c.yaml", HF_HUB_OFFLINE="1", HF_HOME=str(place.parent / "hf")).returncode == 3
    assert everything(place / "new") == [place / "new" / "deep", place / "new" / "deep" / "run"]


def test_a_made_folder_goes_only_when_it_is_empty(tmp_path):
    with made_folder(tmp_path / "a" / "b"):
        pass
    with made_folder(tmp_path / "c" / "d"):
        (tmp_path / "c" / "kept").touch()
    assert everything(tmp_path) == [tmp_path / "c", tmp_path / "c" / "kept"]


def test_a_try_leaves_no_trace(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert everything(tmp_path) == []


def test_a_write_that_fails_takes_its_folder_along(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a" / "b" / "c.txt", "half a pair: \ud800")
    assert everything(tmp_path) == []


def test_a_folder_that_another_process_takes_away_is_made_again(tmp_path, monkeypatch):
    from diffusecli.files import locks

    whole, calls = locks._locked, []

    def once_without_its_folder(lock_file):
        calls.append(lock_file)
        if len(calls) == 1:
            lock_file.parent.rmdir()
        return whole(lock_file)

    monkeypatch.setattr(locks, "_locked", once_without_its_folder)
    with only_writer(tmp_path / "run", tmp_path / "run" / ".lock"):
        assert (tmp_path / "run" / ".lock").is_file()
    assert everything(tmp_path) == []


def test_answers_that_arrived_stay_when_the_server_goes(tmp_path):
    from collections import Counter

    from diffusecli.prompts.prompt import Prompt
    from diffusecli.runs.sample_files import journal_path
    from diffusecli.sampling.generations import generate
    from diffusecli.sampling.settings import SamplingSettings

    class Leaves:
        def __init__(self):
            self.about = {"engine": "e"}

        def draw(self, prompt, have, arrived, watch):
            if prompt.request == "a":
                arrived(Counter("xyz"), 3)
            raise InputError("gone")

    path = tmp_path / "s.json"
    for number, requests in enumerate(("ba", "ab", "ba")):
        asked = [Prompt(request=text, targets=(), alias=text) for text in requests]
        with pytest.raises(InputError, match="gone"):
            generate(
                Leaves(), asked, SamplingSettings(5, 3), mode="lora", adapter_sha256=None, path=path, form="json",
                report=lambda *_: None, notice=lambda _: None,
            )  # fmt: skip
        assert journal_path(path).is_file() == (number > 0)
    assert '"x": 1' in journal_path(path).read_text()


# endings


@pytest.mark.parametrize("name", ["s.xlsx", "s.txt", "s.parquet", "s.json.gz", "s.yaml", "s.TSV", "s.ndjson", "s.html"])
def test_samples_are_not_named_as_what_they_are_not(name, tmp_path):
    with pytest.raises(InputError, match=r"JSON, JSON lines or CSV, not as \..*; end the name in \.json, \.jsonl or \.csv"):
        resolve(Wanted(model="m", requests=("x",), output=Path(name)), tmp_path)


@pytest.mark.parametrize(
    ("name", "form"), [("s.json", "csv"), ("s", "csv"), ("s", "jsonl"), ("s.csv", "json"), ("s.jsonl", "counts")]
)
def test_a_format_and_an_ending_that_differ_are_refused(name, form, tmp_path):
    with pytest.raises(InputError, match=f"--format {form} is not read from such a name; end the name in"):
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
    "--plots charts.png": (["evaluate", "results/r1", "--plots", "charts.png"], "name a folder without .png"),
    "-o x.yaml": (["init-prompt", "--binomial", "4", ".5", "-o", "x.yaml"], "end the name in .json"),
    "-o x.csv": (["init-prompt", "--binomial", "4", ".5", "-o", "x.csv"], "end the name in .json"),
    "-o groups.json": (["init-prompt", "--from", "t.csv", "--column", "a", "--count", "--group-by", "b", "--request", "{b}?", "-o", "groups.json"],
                       "name a folder without .json"),
    "-o m.gguf": (["export", "results/r1", "-o", "m.gguf"], "name a folder without .gguf"),
    "-o m.safetensors": (["export", "results/r1", "-o", "m.safetensors"], "name a folder without .safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("option", WRITES)
def test_no_output_is_named_as_what_it_is_not(in_process, place, option):
    (place / "t.csv").write_text("a,b\n1,x\n2,y\n")
    words, remedy = WRITES[option]
    before = everything(place)
    done = in_process(*words)
    assert (done.returncode, remedy in done.stderr, option in done.stderr) == (2, True, True), done.stderr
    assert everything(place) == before


@pytest.mark.parametrize("name", ["SmolLM2-1.7B", "m-v1.0", "qwen2.5", "numbers"])
def test_versions_in_names_are_no_endings(name):
    require_ending(Path(name), "-o", "a folder")
    with pytest.raises(InputError, match=f"{name}.gguf"):
        require_ending(Path(f"{name}.gguf"), "-o", "a folder")


def test_prompts_without_an_ending_are_written(in_process, tmp_path):
    assert in_process("init-prompt", "--binomial", "4", ".5", "-o", "x").returncode == 0
    assert json.loads((tmp_path / "x").read_text())["targets"]
