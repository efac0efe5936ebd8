"""The study's commands are sound, run once, and its page says what its tables hold."""

import csv
import json
import os
from dataclasses import replace
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


def test_a_stage_is_run_again_when_what_it_reads_is_newer_or_gone(workplace, capsys):
    Path("run.json").write_text("1")
    stage = replace(version("out/said"), reads=(Path("run.json"),))
    stages.run([stage])
    assert stages.is_done(stage, stages.read_journal())
    later = stage.product.stat().st_mtime_ns + 10
    os.utime("run.json", ns=(later, later))
    assert not stages.is_done(stage, stages.read_journal())
    stages.run([stage])
    Path("run.json").unlink()
    assert not stages.is_done(stage, stages.read_journal())


def test_a_folder_goes_when_its_command_changes_and_stays_when_it_was_only_interrupted(workplace, monkeypatch):
    def training(*more):
        return replace(version("runs/a/run.json", *more), fills_folder=True)

    calls = []

    def call(stage):
        calls.append(sorted(path.name for path in Path("runs/a").glob("*")))
        stage.product.parent.mkdir(parents=True, exist_ok=True)
        (stage.product.parent / f"checkpoint-{len(calls)}").touch()
        if len(calls) in (1, 3):
            raise KeyboardInterrupt
        return 0, "done"

    monkeypatch.setattr(stages, "_call", call)
    with pytest.raises(KeyboardInterrupt):
        stages.run([training()])
    stages.run([training()])  # goes on with the first checkpoint
    with pytest.raises(KeyboardInterrupt):
        stages.run([training("--help")])  # other settings: anew
    stages.run([training("--help")])  # and goes on
    assert calls == [[], ["checkpoint-1"], [], ["checkpoint-3"]]


def test_what_was_spent_before_an_interruption_counts(workplace, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0])
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(clock))
    outcomes = iter([KeyboardInterrupt, None])

    def call(_):
        if (outcome := next(outcomes)) is not None:
            raise outcome
        return 0, "done"

    monkeypatch.setattr(stages, "_call", call)
    with pytest.raises(KeyboardInterrupt):
        stages.run([version("out/said")])
    assert stages.seconds_of([version("out/said")], stages.read_journal()) == 5
    stages.run([version("out/said")])
    assert stages.seconds_of([version("out/said")], stages.read_journal()) == 12


def test_prompts_that_several_pieces_share_take_their_time_once(workplace):
    every = dict.fromkeys(stage for seed in range(3) for stage in plan.stages_of(list(plan.EXPERIMENTS), seed))
    stages.write_json(stages.JOURNAL, {stage.name: {"command": stage.told, "done": True, "seconds": 60.0} for stage in every})
    told = list(collect.minutes())
    assert sum(line["minutes"] for line in told) == pytest.approx(len(every))


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
    every = dict.fromkeys(stage for seed in range(3) for stage in plan.stages_of(list(plan.EXPERIMENTS), seed))
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


def write_lines(folder, name, *lines):
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def test_the_matrix_holds_means_over_a_groups_prompts_bold_where_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)

    def line(mode, prompt, kl, trained="False"):
        return {"run": "in-numbers", "seed": 0, "mode": mode, "prompt": prompt, "n": 200, "exact_kl": kl, "trained": trained}

    measured = [
        line(mode, f"{path.removesuffix('.json')}/{number}.json" if not path.endswith(".json") else path, kl, trained)
        for mode, base, own in (("untuned", 8, ""), ("lora", 1, "numbers"))
        for group, path in plan.GROUPS.items()
        for number, kl, trained in ((0, base, str(group == own)), (1, base + 1, str(group == own)))
    ]
    write_lines(tmp_path, "groups", *measured)
    text = page.filled("<!-- table: matrix-kl -->\n<!-- end -->\n").splitlines()
    assert text[3] == "| nothing | 8.50 | 8.50 | 8.50 | 8.50 | 8.50 | 8.50 |"
    assert text[4] == "| only numbers | 1.50 | 1.50 | 1.50 | 1.50 | **1.50** | 1.50 |"
    assert len(text) == 6


def test_drift_and_kl_are_those_of_the_run_with_and_without_retention(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    kept = {"run": "both", "seed": 0, "mode": "lora", "drift": 0.01, "trained_kl": 0.002}
    write_lines(tmp_path, "rng", kept, {**kept, "seed": 1, "drift": 0.5}, {**kept, "mode": "untuned", "drift": 0})
    write_lines(tmp_path, "retention", {**kept, "run": "both-free", "drift": 0.25, "trained_kl": 0.001})
    text = page.filled("<!-- table: drift -->\n<!-- end -->\n")
    assert "| 1 to 10 and 1 to 100 | 0.0100 | 0.0020 | 0.2500 | 0.0010 |\n" in text
    assert "| all six groups | - | - | - | - |\n" in text


def test_the_untuned_models_line_is_the_one_that_was_sampled():
    exact = {"mode": "untuned", "prompt": "p", "seed": "0", "n": "", "exact_kl": "7"}
    sampled = {**exact, "n": "1000", "run": "both"}
    assert page.untuned([exact, sampled], prompt="p") == [sampled]
    assert page.untuned([exact], prompt="p") == [exact]


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
