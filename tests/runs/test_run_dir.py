"""The run directory: files are whole or absent, the newest run is found."""

import json
import os
from collections import Counter

import pytest

from diffusecli.files.writing import atomic_write, move_into, write_json, write_text
from diffusecli.runs.finding import config_of, find_runs, newest_run
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError


def make_run(folder, age=0):
    folder.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "run.json"):
        (folder / name).write_text("{}")
        os.utime(folder / name, (1_000_000 - age, 1_000_000 - age))
    return folder


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "f.json"
    write_text(path, "old")
    with pytest.raises(ValueError, match="half-way"), atomic_write(path) as file:
        file.write("new")
        raise ValueError("half-way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_json_is_read_back(tmp_path):
    write_json(tmp_path / "deep" / "f.json", {"ä": [1, "x"]})
    assert json.loads((tmp_path / "deep" / "f.json").read_text()) == {"ä": [1, "x"]}


def test_an_unwritable_place_is_an_error_of_the_machine(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        write_text(tmp_path / "file" / "below", "x")


def test_finished_files_are_moved_under_their_own_names(tmp_path):
    scratch, run = tmp_path / "scratch", tmp_path / "run"
    scratch.mkdir()
    run.mkdir()
    (scratch / "a").write_text("x")
    move_into(run, [scratch / "a"])
    assert (run / "a").read_text() == "x"
    assert not (scratch / "a").exists()


def test_runs_are_found_below_a_folder_and_the_newest_is_the_last_trained(tmp_path):
    old, new = make_run(tmp_path / "results" / "old", age=50), make_run(tmp_path / "results" / "deep" / "new")
    assert Counter(run.path for run in find_runs(tmp_path / "results")) == Counter([old, new])
    assert newest_run(tmp_path / "results") == RunDir(new)


def test_no_run_is_a_clear_error(tmp_path):
    with pytest.raises(InputError, match="contains no run"):
        find_runs(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_runs(tmp_path / "nowhere")


def test_sample_files_prefer_what_was_sampled_last(tmp_path):
    run = RunDir(make_run(tmp_path / "run"))
    write_json(run.path / "gen.json", {})
    assert run.sample_files() == {"lora": run.path / "gen.json"}
    os.utime(run.path / "gen.json", (1, 1))
    write_json(run.samples("lora"), {})
    write_json(run.samples("untuned"), {})
    assert run.sample_files() == {"untuned": run.samples("untuned"), "lora": run.samples("lora")}


def test_a_folder_of_runs_is_only_recommended_where_one_can_be_named(tmp_path):
    with pytest.raises(InputError, match=r"nosuch: does not exist\. Use a run directory$"):
        config_of(RunDir(tmp_path / "nosuch"))
    with pytest.raises(InputError, match=r"nosuch: does not exist\. Use a run directory or a folder of runs$"):
        find_runs(tmp_path / "nosuch")
