"""The study's commands are sound, run once, and its page says what its tables hold."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.study import collect, page, plan, stages
from benchmarks.study.stages import Stage
from diffusecli.config import read_config
from diffusecli.prompt import Prompt


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def version(product, *more):
    return Stage("a/version", ("diffusecli", "--version", *more), Path(product), prints=True)


def test_a_stage_is_run_once_and_again_only_when_its_command_changes(workplace, capsys):
    stages.run([version("out/said")])
    assert Path("out/said").read_text().startswith("diffuse ")
    stages.run([version("out/said")])
    assert capsys.readouterr().out.count("diffuse --version") == 1
    stages.run([version("out/said", "--help")])
    assert "diffuse --version --help" in capsys.readouterr().out


def test_a_stage_whose_file_is_gone_is_run_again(workplace, capsys):
    stages.run([version("out/said")])
    Path("out/said").unlink()
    stages.run([version("out/said")])
    assert capsys.readouterr().out.count("diffuse --version") == 2
    assert Path("out/said").is_file()


def test_a_command_that_fails_ends_the_study_with_its_code_and_is_not_done(workplace, capsys):
    broken = Stage("a/broken", ("diffusecli", "evaluate", "nowhere", "--json"), Path("out/evaluation.json"), prints=True)
    with pytest.raises(SystemExit) as ended:
        stages.run([broken, version("out/said")])
    assert ended.value.code == 2
    assert "nowhere" in capsys.readouterr().err
    assert not stages.is_done(broken, stages.read_journal())
    assert not Path("out/said").exists()
    assert not broken.product.exists()


def test_every_training_of_the_plan_is_a_sound_config():
    checked = 0
    for experiments in plan.EXPERIMENTS.values():
        for experiment in experiments:
            assert len({experiment.run(seed) for seed in range(experiment.seeds)}) == experiment.seeds
            training = next(stage for stage in experiment.stages(0) if stage.command[1] == "train")
            overrides = [word for word in training.command if "=" in word]
            config = read_config(training.command[2], overrides)
            assert config.output_dir == str(experiment.run(0))
            checked += 1
    assert checked == sum(map(len, plan.EXPERIMENTS.values())) >= 40


def test_names_of_stages_are_told_apart():
    every = dict.fromkeys(stage for seed in range(3) for stage in plan.stages(list(plan.EXPERIMENTS), seed))
    assert len({stage.name for stage in every}) == len(every)
    assert len({stage.product for stage in every}) == len(every)


def test_the_page_holds_the_tables_that_the_csv_files_give():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text) == text, "run `python -m benchmarks.study --tables`"
    assert text.count("<!-- table: ") >= 1


def test_a_table_is_made_from_the_lines_of_a_csv_file(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    with (tmp_path / "minutes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["piece", "seed", "minutes"], ["rng", "0", "2.5"], ["rng", "1", "3.0"]])
    marked = "a\n<!-- table: minutes -->\nold\n<!-- end -->\nb\n"
    table = "| piece | seed | minutes |\n|---|---|---|\n| rng | 0 | 2.5 |\n| rng | 1 | 3.0 |\n| all |  | 6 |\n"
    assert page.filled(marked) == f"a\n<!-- table: minutes -->\n{table}<!-- end -->\nb\n"


def test_a_mark_that_names_no_table_is_an_error():
    with pytest.raises(KeyError, match="unheard"):
        page.filled("<!-- table: unheard -->\n<!-- end -->\n")


def test_seeds_are_told_as_mean_and_range():
    assert page.spread(["1", "2", "6"], 1) == "3.0 (1.0 to 6.0)"
    assert page.share(["0.5", ""]) == "50.0"


def test_the_nearest_trained_target_is_found_by_total_variation_distance(workplace):
    def write(name, targets, weights):
        Path(f"{name}.json").write_text(json.dumps({"request": "r", "targets": targets, "weights": weights}))

    write("new", ["a", "b"], [1, 1])
    write("near", ["a", "b", "c"], [3, 5, 2])  # min(.5, .3) + min(.5, .5) = .8
    write("far", ["c"], [1])
    run = next(e for e in plan.EXPERIMENTS["weighted"] if e.needs).run(0)
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"exact_kl": {"near.json": 0, "far.json": 0, "new.json": 0}}))
    line = {"run": run.name.removesuffix("-0"), "seed": 0, "prompt": "new.json"}
    assert collect.nearest(line)["nearest_tvd"] == pytest.approx(0.2)
    assert collect.distance(Prompt(request="r", targets=("a",)), Prompt(request="r", targets=("b",))) == 1
