"""The study's commands are sound, run once, and its page says what its tables hold."""

import csv
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.study import collect, page, pictures, plan, stages
from benchmarks.study.stages import Stage
from diffusecli.files.locks import only_writer
from diffusecli.prompts.config_files import read_config
from diffusecli.system.errors import InputError


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
    later = stage.product.stat().st_mtime_ns + 2_000_000_000  # a disk may keep whole seconds
    os.utime("run.json", ns=(later, later))
    assert not stages.is_done(stage, stages.read_journal())
    stages.run([stage])
    Path("run.json").unlink()
    assert not stages.is_done(stage, stages.read_journal())


def test_a_folder_goes_when_its_command_changes_and_stays_when_it_was_only_interrupted(workplace, monkeypatch):
    def training(*more):
        return replace(version("runs/a/run.json", *more), fills_folder=True)

    calls = []

    def call(stage, jobs):
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


def test_commands_run_side_by_side_but_after_those_whose_files_they_read(workplace, monkeypatch):
    first, second, third = (replace(version(f"out/{name}"), name=name) for name in "abc")
    second = replace(second, reads=(first.product,))
    together, order = threading.Barrier(2, timeout=60), []

    def call(stage, jobs):
        order.append(stage.name)
        if stage.name in "ac":
            together.wait()  # both run, or neither ends
        stage.product.parent.mkdir(exist_ok=True)
        return 0, stage.name

    monkeypatch.setattr(stages, "_call", call)
    stages.run([first, second, third], jobs=2)
    assert sorted(order[:2]) == ["a", "c"]
    assert order[2] == "b"
    journal = stages.read_journal()
    assert [stages.is_done(stage, journal) for stage in (first, second, third)] == [True, True, True]


def test_two_processes_do_not_run_the_study_in_one_folder(workplace):
    with only_writer(stages.WHERE, stages.WHERE / ".lock"), pytest.raises(InputError, match="another process"):
        stages.run([version("out/said")])
    assert not Path("out/said").exists()
    stages.run([version("out/said")])
    assert Path("out/said").exists()


def test_a_failure_lets_the_command_beside_it_finish_and_starts_no_other(workplace, monkeypatch):
    broken, beside, later = (replace(version(f"out/{name}"), name=name) for name in ("broken", "beside", "later"))
    failed = threading.Event()

    def call(stage, jobs):
        stage.product.parent.mkdir(exist_ok=True)
        if stage.name == "beside":
            assert failed.wait(60)
        elif stage.name == "broken":
            failed.set()
            return 3, ""
        return 0, "done"

    monkeypatch.setattr(stages, "_call", call)
    with pytest.raises(SystemExit) as ended:
        stages.run([broken, beside, later], jobs=2)
    assert ended.value.code == 3
    assert [stages.is_done(stage, stages.read_journal()) for stage in (broken, beside, later)] == [False, True, False]


def test_what_was_spent_before_an_interruption_counts(workplace, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0])
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(clock))
    outcomes = iter([KeyboardInterrupt, None])

    def call(stage, jobs):
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
    every = dict.fromkeys(stage for seed in range(3) for stage in plan.stages_of(plan.PIECES, seed))
    stages.write_json(stages.JOURNAL, {stage.name: {"command": stage.told, "done": True, "seconds": 60.0} for stage in every})
    told = list(collect.minutes())
    assert sum(line["minutes"] for line in told) == pytest.approx(len(every))


def test_minutes_of_pieces_that_were_run_elsewhere_are_kept(workplace):
    write_lines(workplace, "minutes", {"piece": "rng", "seed": 0, "minutes": 22.7}, {"piece": "choices", "seed": 0, "minutes": 9})
    stages.write_json(stages.JOURNAL, {stage.name: {"done": True, "seconds": 60} for stage in plan.stages_of(["choices"], 0)})
    collect.collect()
    number = len(set(plan.stages_of(["choices"], 0)))
    text = (workplace / "minutes.csv").read_text()
    assert text == f"piece,seed,minutes\nrng,0,22.7\nchoices,0,{number:.1f}\n"


def test_lines_of_runs_that_are_not_here_stay_in_a_table(workplace, monkeypatch):
    earlier = [
        {"way": way, "seed": seed, "set": name, "kl": kl}
        for way, seed, name, kl in (
            ("tree", 0, "trained", "0.2"),
            ("path", 1, "trained", "9"),
            ("path", 1, "unseen", "9"),
            ("hard", 2, "trained\nwith a line", "0.7"),
        )
    ]
    write_lines(workplace, "losses", *earlier)
    measured = [{"way": "path", "seed": 1, "set": "trained", "kl": 0.5}, {"way": "tree", "seed": 2, "set": "trained", "kl": 0.1}]
    monkeypatch.setattr(collect.losses_results, "lines", lambda journal: measured)
    collect.collect()
    text = (workplace / "losses.csv").read_text()
    assert (
        text == 'way,seed,set,kl\ntree,0,trained,0.2\npath,1,trained,0.5\nhard,2,"trained\nwith a line",0.7\ntree,2,trained,0.1\n'
    )


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


def test_pictures_are_what_the_csv_files_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # here are no runs, so no pictures of them
    monkeypatch.setattr(pictures, "PICTURES", tmp_path)
    every = list(pictures.draw())
    assert "study-groups.svg" in [drawn.name for drawn in every]
    for drawn in every:
        committed = page.PAGE.parent / "pictures" / drawn.name
        assert drawn.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8"), (
            "run `python -m benchmarks.study --tables`"
        )


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


@pytest.fixture
def row_of(tmp_path, monkeypatch):
    """The row of a table that begins with these cells, from lines of CSV files."""
    monkeypatch.setattr(page, "RESULTS", tmp_path)

    def find(table, *begins, **files):
        for name, lines in files.items():
            write_lines(tmp_path, name, *lines)
        rows = [line.strip("| ").split(" | ") for line in page.filled(f"<!-- table: {table} -->\n<!-- end -->\n").splitlines()]
        (row,) = (row for row in rows if row[: len(begins)] == list(begins))
        return row[len(begins) :]

    return find


FIGURES = {
    "seed": 0, "mode": "lora", "n": 1000, "valid": 0.9, "valid_low": 0.88, "valid_high": 0.92, "exact_kl": 0.25, "exact_on_target": 0.875,
    "exact_tvd": 0.125, "excess_tvd": 0.0625,
}  # fmt: skip
UNTUNED = {**FIGURES, "mode": "untuned", "exact_kl": 8, "exact_on_target": 0, "exact_tvd": 1, "valid": 0}
FOUND = ["0.2500", "87.5", "0.125", "90.0 [88.0 to 92.0]", "0.062"]


def test_figures_of_several_seeds_are_their_means_and_stand_in_the_row_of_their_training(row_of):
    base = {**FIGURES, "run": "1-10", "prompt": plan.NUMBERS[0]}
    others = [
        {**base, "seed": 1, "exact_kl": 0.75},
        {**base, "prompt": plan.NUMBERS[1], "exact_kl": 5},
        {**base, "run": "both", "exact_kl": 0.5},
    ]
    rng = [base, *others, {**UNTUNED, "run": "both", "prompt": plan.NUMBERS[0]}]
    assert row_of("rng", "1 to 10", "1 to 10", rng=rng)[0] == "0.5000 (0.2500 to 0.7500)"
    assert row_of("rng", "1 to 100", "1 to 10")[0] == "5.0000"
    assert row_of("rng", "1 to 10", "both")[0] == "0.5000"
    assert row_of("rng", "1 to 10", "nothing")[:2] == ["8.0000", "0.0"]
    assert row_of("rng", "1 to 100", "1 to 100") == ["-"] * 5


def test_a_weighted_target_is_told_untrained_alone_and_with_others(row_of):
    line = {**FIGURES, "prompt": plan.SINGLES["dice"]}
    weighted = [
        {**line, "run": "dice"},
        {**line, "run": "together", "exact_kl": 0.5},
        {**UNTUNED, "prompt": line["prompt"], "run": "together"},
    ]
    assert row_of("weighted", "dice", "alone", weighted=weighted) == FOUND
    assert row_of("weighted", "dice", "with nine others")[0] == "0.5000"
    assert row_of("weighted", "dice", "none")[0] == "8.0000"


def test_parameters_never_trained_on_stand_one_by_one_and_trained_ones_together(row_of):
    def line(one, kl, nearest=0.0, mode="lora", like="binomial 10 0.3"):
        return {
            **FIGURES,
            "run": "binomials",
            "mode": mode,
            "prompt": str(plan.prompt_file(one)),
            "exact_kl": kl,
            "nearest_tvd": nearest,
            "answered_like": like,
            "answered_tvd": 0.25,
            "p_value": 0.0625,
        }

    trained, new = plan.BINOMIALS[:2], plan.OTHER_BINOMIALS[0]
    lines = [
        line(trained[0], 0.25),
        line(trained[1], 0.75),
        line(new, 0.5, 0.375),
        *(line(one, 9, mode="untuned") for one in (*trained, new)),
    ]
    assert row_of("unseen", "binomials", "the 15 trained", weighted=lines)[:2] == [
        "9.000 (9.000 to 9.000)",
        "0.500 (0.250 to 0.750)",
    ]
    told = row_of("unseen", "binomials", "binomial 10 0.2 (unseen parameters)")
    assert told == ["9.000", "0.500", "87.5", "0.125", "0.062", "0.375", "binomial 10 0.3 (0.250)"]


def test_names_beyond_the_list_are_a_share_of_all_answers(row_of):
    line = {
        **FIGURES, "run": "gamma-0.2", "iterations": 16, "distinct": 450, "real_answers": 250, "real_names": 200, "common_names": 140,
        "examples": "{Gwen} {Steve}",
    }  # fmt: skip
    assert row_of("names", "0.2", names=[line]) == ["16", "0.250", "87.5", "450", "200", "140", "25.0", "{Gwen} {Steve}"]


def test_people_are_counted_by_heading_and_distinct_lines_by_answer(row_of):
    def line(run, mode, distinct, n):
        return {
            "run": run,
            "mode": mode,
            "heading": "Name",
            "answers": 300,
            "distinct": distinct,
            "n": n,
            "unseen_mass": distinct / n / 2,
        }

    lines = [line("all", "untuned", 20, 200), line("all", "lora", 30, 100), line("people", "lora", 90, 300)]
    assert row_of("people", "Name", lines=lines) == ["20 of 200", "30 of 100", "90 of 300", "0.05 / 0.15", "4.5x"]


def test_abilities_are_told_with_their_interval_and_what_changed(row_of):
    tuned = {
        "model": "both", "choices_accuracy": 0.5, "choices_low": 0.41, "choices_high": 0.59, "choices_lost": 3, "choices_gained": 1,
        "choices_p_value": 0.625, "arithmetic_accuracy": 0.25, "arithmetic_low": 0.18, "arithmetic_high": 0.34, "arithmetic_lost": 0,
        "arithmetic_gained": 2, "arithmetic_p_value": 0.5, "perplexity": 20.5, "perplexity_factor": 1.02, "perplexity_factor_low": 1.01,
        "perplexity_factor_high": 1.03,
        **{f"{kind}_log_prob_change{end}": value for kind in ("choices", "arithmetic") for end, value in (("", 0.25), ("_low", -0.5), ("_high", 1))},
    }  # fmt: skip
    told = row_of("abilities", "1 to 10 and 1 to 100", abilities=[tuned, {**tuned, "model": "untuned"}])
    change = "+0.25 [-0.50 to +1.00]"
    right = ["50.0 [41 to 59]", "3, 1 (0.62)", change, "25.0 [18 to 34]", "0, 2 (0.5)", change]
    assert told == [*right, "20.50", "1.020 [1.010 to 1.030]"]
    assert row_of("abilities", "untuned")[1] == "-"


def test_ablations_tell_the_tenth_iteration_and_the_end(row_of):
    curves = [{"run": "rank-1", "iteration": at, "prompt": prompt, "kl": at / 8} for at in (9, 10) for prompt in plan.NUMBERS]
    ends = [{**FIGURES, "run": "rank-1", "prompt": prompt, "drift": 0.0125} for prompt in plan.NUMBERS]
    assert row_of("ablations", "rank-1", curves=curves, ablations=ends) == ["1.2500", "1.2500", "0.2500", "0.2500", "0.0125"]


def test_packed_and_rows_are_told_side_by_side(row_of):
    step = {"step": 1, "packed_loss": 3.5, "rows_loss": 3.25, "packed_seconds": 1.5, "rows_seconds": 12}
    assert row_of("rows", "1", rows=[step]) == ["3.50000", "3.25000", "+0.25000", "1.5", "12.0"]


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


def test_the_nearest_trained_target_and_answers_are_found_by_total_variation_distance(workplace):
    def write(name, targets, weights):
        Path(f"{name}.json").write_text(json.dumps({"request": "r", "targets": targets, "weights": weights}))

    write("new", ["a", "b"], [1, 1])
    write("near", ["a", "b", "c"], [3, 5, 2])  # min(.5, .3) + min(.5, .5) = .8
    write("far", ["c"], [1])
    run = next(e for e in plan.EXPERIMENTS["weighted"] if e.needs).run(0)
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"exact_kl": {"near.json": 0, "far.json": 0, "new.json": 0}}))
    answers = {"new.json": ["a", "a", " b", "x"], "near.json": ["b", "b", "c", "c"], "far.json": ["a", "b", "c", "c"]}
    (run / "gen.lora.json").write_text(json.dumps(answers))
    line = {"run": run.name.removesuffix("-0"), "seed": 0, "prompt": "new.json", "mode": "lora", "n": 4}
    assert collect.nearest(line) == {"nearest_tvd": pytest.approx(0.2), "answered_like": "far", "answered_tvd": 0.5}
    assert collect.nearest({**line, "mode": "untuned", "n": None}) == {"nearest_tvd": pytest.approx(0.2)}
    assert collect.distance({"a": 1.0}, {"b": 1.0}) == 1


def test_answers_on_target_are_held_against_as_many_of_a_perfect_sampler(workplace):
    Path("p.json").write_text(json.dumps({"request": "r", "targets": ["{a}", "{b}"]}))
    experiment = plan.EXPERIMENTS["groups"][0]
    experiment.run(0).mkdir(parents=True)
    (experiment.run(0) / "gen.lora.json").write_text(json.dumps({"p.json": ["{a}", " {a}", "{c}", "b"]}))
    line = {"run": experiment.name, "seed": 0, "prompt": "p.json", "mode": "lora", "n": 4}
    found = collect.on_target(line)
    assert found == {"braced": 0.75, "on_target_tvd": 0.5, "on_target_floor": pytest.approx(0.25)}  # of two draws half agree
    assert collect.on_target({**line, "n": None}) == {}
