"""Where paths lead: one's own files first, then what lies beside the config, then the library."""

import json
from pathlib import Path

import pytest

from diffusecli.evaluation.prompt_book import PromptBook
from diffusecli.files.paths import LIBRARY, Found, find, library_notices, look_again
from diffusecli.files.writing import write_json
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.finding import find_runs
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError
from diffusecli.verbs.sample import Wanted, resolve

RNG = "prompts/numbers/rng-0.json"
OWN = {"request": "Say a letter.", "targets": ["{a}", "{b}"]}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_the_working_directory_comes_before_the_folder_of_the_config_and_that_before_the_library(tmp_path):
    home = tmp_path / "home"
    assert find(RNG, home) == Found(RNG, LIBRARY / RNG)
    write(home / RNG, OWN)
    assert find(RNG, home) == Found(str(home / RNG), home / RNG)
    write(tmp_path / RNG, OWN)
    assert find(RNG, home) == Found(RNG, Path(RNG))


@pytest.mark.parametrize(
    "path", ["pyproject.toml", "numbers/rng-0.json", "prompts/../pyproject.toml", "/prompts", "prompts/none.json", "", "prompts/\0"]
)
def test_what_the_library_does_not_hold_is_not_taken_from_around_it(path):
    assert find(path) == Found(path, Path(path))


def test_prompts_of_the_library_are_called_what_they_were_asked_for():
    found = read_prompts(["prompts/numbers"])
    assert [prompt.alias for prompt in found] == sorted(prompt.alias for prompt in found)
    assert (found[-1].alias, len(found)) == ("prompts/numbers/rng-1.json", 8)


def test_a_config_keeps_the_paths_so_that_its_run_works_elsewhere():
    assert read_config("configs/quickstart.yaml").train_prompts[0] == RNG


def test_the_library_is_told_of_once_and_only_where_somebody_listens():
    told = []
    find(RNG)
    with library_notices(told.append):
        find("results/none")
        assert told == []
        find(RNG)
        find("configs/quickstart.yaml")
    find(RNG)
    assert told == [f"{RNG}: not found here. Using the bundled copy, also for other missing files ({LIBRARY})"]


def test_what_a_run_keeps_of_a_prompt_comes_before_the_librarys_prompt_of_that_name(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    config = Config(model="m", train_prompts=(RNG,), test_prompts=(RNG,), output_dir="run")
    run.config.write_text(config.to_yaml())
    write_json(run.prompts, {RNG: OWN})
    for source in (run.path, run.config):
        (prompt,) = resolve(Wanted(source, "untuned"), Path("results")).prompts
        assert (prompt.alias, prompt.targets) == (RNG, ("{a}", "{b}"))
    run.prompts.unlink()
    (prompt,) = resolve(Wanted(run.path, "untuned"), Path("results")).prompts
    assert len(prompt.targets) == 10


def test_samples_that_keep_no_prompt_are_judged_by_the_librarys(tmp_path):
    assert len(PromptBook([]).find(RNG, [{RNG: [1, 2]}], tmp_path / "gen.json").targets) == 10


def test_a_link_of_ones_own_that_is_broken_is_not_replaced_by_the_library(tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/numbers").symlink_to(tmp_path / "unmounted")
    assert find(RNG) == Found(RNG, Path(RNG))


def test_a_link_that_works_is_a_folder_like_any_other(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "prompts").symlink_to(tmp_path / "mine")
    assert find(RNG) == Found(RNG, LIBRARY / RNG)


def test_a_config_means_the_library_also_where_an_older_run_keeps_less(tmp_path):
    config = {"model": "m", "train_prompts": [], "test_prompts": ["prompts/numbers"], "output_dir": "out"}
    write(tmp_path / "c.yaml", config)
    write(tmp_path / "out/prompts.json", {RNG: {"alias": RNG, **OWN}})
    found = resolve(Wanted(tmp_path / "c.yaml", "untuned"), tmp_path / "results")
    assert len(found.prompts) == 8


def test_a_folder_of_ones_own_that_may_not_be_entered_is_not_passed_over_for_the_library(monkeypatch):
    def may_not_enter(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", may_not_enter)
    assert find(RNG) == Found(RNG, Path(RNG))


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        ("prompt/names/a.json", "did you mean 'prompts/names/a.json'?"),
        ("prompts/nmes", "did you mean 'prompts/names'?"),
        ("prompt/zzz.json", "did you mean 'prompts'?"),
        ("prompts/names/a.json/b", "check the path"),
        ("zzz", "check the path"),
        ("prompts/\0", "check the path"),
        ("p" * 5000, "check the path"),
        ("prompts/names/a.json", "check the path"),
    ],
)
def test_the_nearest_path_that_is_there_is_offered(asked, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "prompts/names/a.json", OWN)
    assert look_again(asked, "check the path") == remedy
    assert look_again(tmp_path / asked, "check the path") == remedy.replace("'prompts", f"'{tmp_path}/prompts")


def test_a_path_into_the_library_is_looked_for_there_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert look_again("prompts/numbers/rng-00.json", "check") == f"did you mean '{RNG}'?"
    assert look_again("prompt/numbers/rng-0.json", "check") == f"did you mean '{RNG}'?"
    assert look_again("numbers/rng-00.json", "check") == "check"
    (tmp_path / "plots").mkdir()
    assert look_again("prompts/numbers/rng-00.json", "check") == f"did you mean '{RNG}'?"
    write(tmp_path / "prompts/numbers/rng-01.json", OWN)
    assert look_again("prompts/numbers/rng-00.json", "check") == "did you mean 'prompts/numbers/rng-01.json'?"


def test_an_unfinished_sampling_is_not_suggested_but_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("served.partial.jsonl").touch()
    with pytest.raises(InputError, match=r"^served.json: sampling is not finished. Run the same `diffuse sample` command again$"):
        find_runs(Path("served.json"))
    for name in ("served", "served.part.jsonl"):
        with pytest.raises(InputError, match=rf"^{name}: does not exist\. Use a run directory"):
            find_runs(Path(name))
