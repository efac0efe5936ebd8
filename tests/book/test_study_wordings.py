"""Groups in many wordings: the prompts, the trainings, the figures and the tables."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import page, stages, worded_groups, wordings
from benchmarks.study.groups import GROUPS
from diffusecli.evaluation.distance import expected_excess
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt_files import read_prompt, read_prompts


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    worded_groups.write(folder)
    return folder


def test_every_prompt_of_the_groups_is_written_in_other_words_with_its_own_request_first(written):
    original = {Path(prompt.alias).stem: prompt for _, prompt in worded_groups.prompts()}
    assert set(original) == set(worded_groups.ABOUT)
    for group, path in GROUPS.items():
        trained = read_prompts([written / worded_groups.TRAINED / group])
        assert len(trained) == len(read_prompts([path]))
        for prompt in trained:
            own = original[Path(prompt.alias).stem]
            assert len(set(prompt.requests)) == worded_groups.WORDINGS
            assert prompt.requests[0] == own.question
            assert (prompt.targets, prompt.probabilities) == (own.targets, own.probabilities)
            alone = read_prompt(written / worded_groups.OWN / group / Path(prompt.alias).name)
            assert (alone.request, alone.targets) == (own.question, own.targets)


def test_questions_that_are_measured_are_never_trained(written):
    trained = [request for prompt in read_prompts([written / worded_groups.TRAINED]) for request in prompt.requests]
    others = read_prompts([written / worded_groups.OTHER])
    assert len(others) == len(worded_groups.ABOUT) * len(worded_groups.OTHER_QUESTIONS)
    for prompt in others:
        about = worded_groups.ABOUT[worded_groups.names(prompt.alias)]
        (question,) = (text for one in worded_groups.OTHER_QUESTIONS if (text := about.question(one)) in prompt.question)
        assert not any(question in request for request in trained)


def test_prompts_of_one_kind_have_different_wordings(written):
    requests = [request for prompt in read_prompts([written / worded_groups.TRAINED]) for request in prompt.requests]
    assert len(set(requests)) == len(requests)


@pytest.mark.parametrize("model", [wordings.MANY, wordings.ONE])
def test_a_model_is_trained_on_all_groups_but_one_in_steps_of_the_same_settings(model):
    for group in GROUPS:
        held = wordings.Held(group, model, 1)
        config = read_config("configs/all.yaml", [word for word in held.training.command if "=" in word])
        assert sorted(Path(path).name for path in config.train_prompts) == sorted(set(GROUPS) - {group})
        assert config.alg_config.targets_per_step == 16
        assert (config.seed, config.output_dir) == (1, str(held.run))


def test_the_control_has_one_seed_and_shares_only_the_prompts():
    def names(piece, seed):
        return [stage.name for stage in wordings.stages(piece, seed)]

    assert len(names(wordings.PIECE, 2)) == 13
    assert names(wordings.CONTROL, 1) == []
    assert set(names(wordings.PIECE, 0)) & set(names(wordings.CONTROL, 0)) == {"wordings/prompts"}


def test_the_model_of_the_mixture_is_trained_and_measured_with_the_first_seed():
    *_, training, last = wordings.stages(wordings.PIECE, 0)
    assert (training.name, last.name) == ("mixture/train", "wordings/mixture-0/evaluate")
    assert training.product in last.reads
    assert not [stage for stage in wordings.stages(wordings.PIECE, 1) if "mixture" in stage.name]


def row(prompt, mode, q):
    targets = [{"target": text, "weight": 0.5, "count": 0} for text in ("{a}", "{b}")]
    return {"mode": mode, "prompt": str(wordings.PROMPTS / prompt), "targets": targets, "exact": {"q": q}}


def test_evenness_is_that_of_the_answers_on_target_alone():
    """By hand: q = (.3, .1) is .4 on target, and (.75, .25) of these, .25 from equal shares; of two such answers see `expected_excess`."""
    found = wordings.figures_of(row("p", "lora", [0.3, 0.1]), 2)
    assert found["on_target"] == pytest.approx(0.4)
    assert found["kl"] == pytest.approx(-(np.log(0.6) + np.log(0.2)) / 2)
    assert found["tvd_among"] == pytest.approx(0.25)
    # two answers: aa or bb with 9/16 + 1/16, at TVD 1/2, so .3125; a perfect sampler .25
    assert found["excess_among"] == pytest.approx(0.0625)
    assert found["excess_tvd"] == expected_excess(200, np.array([0.3, 0.1]), np.array([0.5, 0.5]))
    assert found["coverage"] == pytest.approx(1)
    assert wordings.figures_of(row("p", "lora", [0.3, 0.1]), 0)["excess_among"] is None


def write_lines(path, *found):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for line in found for key in line)))
        writer.writeheader()
        writer.writerows(found)


def measured(run, *rows):
    stage = wordings.measured(run)
    for path in (*stage.reads, stage.product):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps({"rows": rows}))
    journal = stages.read_journal()
    journal[stage.name] = {"command": stage.told, "done": True, "seconds": 1}
    stages.write_json(stages.JOURNAL, journal)


OLD = {
    "run": "out-fruits", "mode": "lora", "prompt": "prompts/fruits/fruit-0.json", "n": 200, "valid": 0.01, "seen": 20, "seen_expected": 40,
    "excess_tvd": 0.75, "exact_kl": 8, "exact_on_target": 0.125, "on_target_tvd": 0.5, "on_target_floor": 0.25,
}  # fmt: skip


def test_lines_are_means_over_the_prompts_of_a_group_and_old_ones_come_beside_them(workplace):
    write_lines(workplace / "groups.csv", OLD)
    journal = stages.read_journal()
    assert list(wordings.lines(journal, workplace / "groups.csv")) == []
    rows = [
        row("measured/own/fruits/fruit-0.json", "lora", [0.3, 0.1]),
        row("measured/own/fruits/fruit-1.json", "lora", [0.5, 0.5]),
        row("measured/other/fruits/fruit-0-1.json", "lora", [0.25, 0.25]),
        row("measured/own/fruits/fruit-0.json", "untuned", [0.001, 0.001]),
    ]
    measured(wordings.Held("fruits", wordings.MANY, 0).run, *rows)
    measured(wordings.Held("fruits", wordings.MANY, 1).run, *rows)
    untuned, own, other, *_, old = wordings.lines(stages.read_journal(), workplace / "groups.csv")
    assert (untuned["model"], untuned["held_out"], untuned["on_target"]) == ("untuned", "", pytest.approx(0.002))
    assert (own["held_out"], own["seed"], own["group"], own["requests"]) == ("fruits", 0, "fruits", "own")
    assert own["on_target"] == pytest.approx(0.7)
    assert own["excess_among"] == pytest.approx(0.0625 / 2)  # of two answers, as the old line has on target, and of 200 even ones
    assert (other["requests"], other["on_target"]) == ("other", 0.5)
    assert (old["model"], old["kl"], old["excess_among"], old["coverage"]) == (wordings.BEFORE, 8, 0.25, 0.5)


def table(name):
    return [text.strip("| ").split(" | ") for text in page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1:-1]]


def test_tables_tell_untrained_groups_apart_from_trained_ones_over_seeds(workplace):
    assert table("wordings") == table("wordings-trained") == [["Not measured yet."]]
    line = {
        "model": wordings.MANY, "held_out": "fruits", "seed": 0, "group": "fruits", "requests": "own", "kl": 1, "on_target": 0.5,
        "tvd_among": 0.25, "excess_among": 0.125, "excess_tvd": 0.5, "coverage": 0.75,
    }  # fmt: skip
    write_lines(
        workplace / "wordings.csv", line, {**line, "seed": 1, "kl": 2}, {**line, "held_out": "names", "kl": 3},
        {**line, "held_out": "numbers", "kl": 4}, {**line, "model": wordings.BEFORE, "tvd_among": ""}, {**line, "model": "mixture", "held_out": ""},
    )  # fmt: skip
    _, _, *rows = table("wordings")
    one = ["0.25", "0.12", "0.50", "75"]
    assert rows == [
        ["fruits", wordings.BEFORE, "own", "1.00", "50", "-", *one[1:]],
        ["fruits", wordings.MANY, "own", "1.50 (1.00 to 2.00)", "50 (50 to 50)", "0.25 (0.25 to 0.25)", "0.12 (0.12 to 0.12)",
         "0.50 (0.50 to 0.50)", "75 (75 to 75)"],
        ["fruits", "the mixture", "own", "1.00", "50", *one],
    ]  # fmt: skip
    assert table("wordings-trained")[2:] == [["fruits", wordings.MANY, "own", "3.50", "50", *one]]
    of_seeds = ["1.50 (1.00 to 2.00)", "50 (50 to 50)", *(f"{value} ({value} to {value})" for value in one)]
    assert table("wordings-means")[2:] == [
        ["untrained", wordings.MANY, "own", *of_seeds],
        ["untrained", "the mixture", "own", "1.00", "50", *one],
        ["trained", wordings.MANY, "own", "3.50", "50", *one],
    ]
