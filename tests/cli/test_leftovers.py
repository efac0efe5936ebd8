"""What fails before it has written anything leaves nothing behind."""

import shutil

import pytest

from diffusecli.files.locks import made_folder, only_writer
from diffusecli.files.writing import require_writable, write_text
from diffusecli.system.errors import InputError


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
    "evaluate": ["evaluate", "results/r1", "--only", "zzz", "--html", "new/deep/r.html"],
    "plots": ["evaluate", "results/r1", "--only", "zzz", "--plots", "new/deep"],
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

        def draw(self, wanted):
            if wanted.prompt.request == "a":
                wanted.arrived(Counter("xyz"), 3)
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


def test_missing_folders_of_outputs_are_created(in_process, tmp_path):
    (tmp_path / "answers.txt").write_text("{1}\n{2}\n")
    assert in_process("init-prompt", "--uniform", "1", "2", "-o", "new/prompts/p.json").returncode == 0
    outputs = ("--html", "new/report/r.html", "--plots", "new/plots")
    done = in_process("evaluate", "answers.txt", "--prompt", "new/prompts/p.json", *outputs)
    assert done.returncode == 0, done.stderr
    assert "wrote new/report/r.html" in done.stderr
    assert (tmp_path / "new/report/r.html").read_text().startswith("<!doctype html>")
    assert {path.suffix for path in (tmp_path / "new/plots").iterdir()} == {".svg", ".png"}
