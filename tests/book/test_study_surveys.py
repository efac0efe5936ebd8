"""Groups of a survey that were never trained: the table of counts, the predictions by hand, and the tables of the page."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.study import page, stages, survey_measure, surveys
from benchmarks.study.survey_baselines import by_groups, main_effects, most_alike, nearest, predictions, shares, tvd
from benchmarks.study.survey_counts import counts
from benchmarks.study.survey_prompts import ANSWERS, QUESTIONS, Group, prompt_of, read_counts, write
from diffusecli.evaluation.perfect import mean_tvd
from diffusecli.files.documents import Document
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.prompt_files import read_prompts

COUNTS = read_counts()


def group(party, sex, age):
    return Group(party, sex, age)


def test_the_table_has_eight_groups_with_six_questions():
    assert len(COUNTS) == len({one.name for one in COUNTS}) == len({one.described for one in COUNTS}) == 8
    assert all(set(answers) == set(QUESTIONS) for answers in COUNTS.values())
    assert all(people.min() > 0 and people.sum() > 50 for answers in COUNTS.values() for people in answers.values())


def test_counts_are_made_from_the_answers_of_single_people():
    people = pd.DataFrame({
        "partyid": [0, 2, 3, 6, 7, 1, None], "sex": [1, 1, 0, 1, 1, 1, 1], "age": [49, 18, 50, 89, 30, None, 30],
        **{question: [1.0, -1.0, 0.0, None, 1.0, 1.0, 1.0] for question in QUESTIONS},
    })  # fmt: skip
    people["natroad"] = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    people["natenrgy"] = [1.0, 0.0, -1.0, 0.0, 1.0, 1.0, 1.0]
    found = counts(people)
    of = found[found.question == "natenrgy"].set_index(["party", "sex", "age"])[list(ANSWERS)]
    assert of.loc["Democrats", "women", "18 to 49"].tolist() == [1, 1, 0]  # the last three people are in no group
    assert of.loc["Republicans", "women", "50 and over"].tolist() == [0, 1, 0]
    assert len(of) == 2  # nor is the independent


def test_every_prompt_is_sound_and_names_its_group_and_question(tmp_path):
    stale = tmp_path / "prompts" / "old" / "old.json"
    stale.parent.mkdir(parents=True)
    stale.touch()
    write(tmp_path)
    prompts = read_prompts([tmp_path / "prompts"])
    assert len({prompt.request for prompt in prompts}) == len(prompts) == 48
    for prompt in prompts:
        assert not [p for p in content_problems(Document("", "", json.loads(prompt.to_json())), prompt) if p.severity == "error"]
    one = group("Republicans", "women", "50 and over")
    prompt = prompt_of(one, "natroad", np.array([1, 2, 1]))
    assert prompt.request.endswith(" A woman aged 50 or over, a Republican, on highways and bridges:")
    assert dict(zip(prompt.targets, prompt.probabilities, strict=True)) == {
        "{too little}": 0.25, "{about right}": 0.5, "{too much}": 0.25,
    }  # fmt: skip


A, B, C, D = (group(party, sex, "18 to 49") for party in ("Democrats", "Republicans") for sex in ("men", "women"))
SMALL = {
    A: {"x": np.array([5, 5]), "y": np.array([8, 2])},
    B: {"x": np.array([6, 4]), "y": np.array([6, 4])},
    C: {"x": np.array([20, 0]), "y": np.array([16, 4])},
    D: {"x": np.array([9, 1]), "y": np.array([0, 10])},
}


def test_predictions_come_from_the_other_groups_alone():
    found = predictions(SMALL, A, "x")
    assert found["uniform"].tolist() == [0.5, 0.5]
    assert found["mean"] == pytest.approx([35 / 40, 5 / 40])  # people, not groups
    assert found["nearest"] == pytest.approx([0.6, 0.4])  # B: the same party and age
    assert found["alike"] == pytest.approx([1, 0])  # C: the same shares of y
    # effects: A = B + C - D, here .6 + 1 - .9 = .7
    assert found["effects"] == pytest.approx([0.7, 0.3])
    elsewhere = {**SMALL, A: {**SMALL[A], "x": np.array([1, 99])}}
    assert all(predictions(elsewhere, A, "x")[name] == pytest.approx(p) for name, p in found.items()), "without its own answers"


def test_the_nearest_group_has_the_party_then_the_age_then_the_sex_in_common():
    own = group("Democrats", "men", "18 to 49")
    by_age, by_sex = group("Republicans", "women", "18 to 49"), group("Republicans", "men", "50 and over")
    assert nearest(own, [by_age, by_sex]) == by_age
    assert nearest(own, [by_age, by_sex, group("Democrats", "women", "50 and over")]).party == "Democrats"
    for one in COUNTS:
        other = nearest(one, [other for other in COUNTS if other != one])
        assert (other.party, other.age) == (one.party, one.age)


def test_the_most_alike_group_is_found_on_the_other_questions():
    # on y: A .8, B .6, C .8, D 0
    assert most_alike(SMALL, A, "x") == C
    assert most_alike(SMALL, B, "x") == A
    assert most_alike(SMALL, A, "y") == B  # on x: A .5, B .6, C 1, D .9


def test_effects_below_zero_count_as_none():
    trained = {
        B: {"x": np.array([0, 10])}, C: {"x": np.array([1, 9])}, D: {"x": np.array([5, 5])},
    }  # fmt: skip
    assert main_effects(trained, A, "x").tolist() == [0, 1]  # 0 + .1 - .5 < 0


def test_what_is_off_target_counts_as_an_error():
    assert tvd(np.array([0.5, 0.5]), np.array([0.25, 0.25])) == 0.5
    assert tvd(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_intervals_resample_groups_and_not_questions():
    same = np.array([[0.0, 1.0]] * 6)  # questions differ, groups do not
    assert by_groups(same) == (0.5, 0.5, 0.5)
    values = np.random.default_rng(1).normal(size=(200, 1)) + np.zeros((200, 5))
    middle, low, high = by_groups(values)
    half = 1.96 * values[:, 0].std() / np.sqrt(200)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=0.02)


def test_a_line_has_the_errors_of_models_and_predictions():
    one, question = next(iter(COUNTS)), "natroad"
    p = shares(COUNTS[one][question])
    line = surveys.line_of(one, question, {"tuned": p / 2, "untuned": np.array([1e-9, 2e-9, 1e-9])})
    assert (line["tvd_tuned"], line["tvd_tuned_valid"], line["on_target_tuned"]) == pytest.approx((0.5, 0, 0.5), abs=1e-12)
    assert line["tvd_untuned"] == pytest.approx(1)
    assert line["tvd_uniform"] == pytest.approx(np.abs(p - 1 / 3).sum() / 2)
    assert line["floor"] == mean_tvd(int(COUNTS[one][question].sum()), p)


def test_every_fold_trains_all_other_groups_and_is_a_sound_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(surveys._FOLDER)
    trainings = [stage for stage in surveys.stages(0) if "train" in stage.command]
    assert len(trainings) == 8
    for one, stage in zip(COUNTS, trainings, strict=True):
        config = read_config(stage.command[2], [word for word in stage.command if "=" in word])
        trained = {prompt.request for prompt in read_prompts(config.train_prompts)}
        assert len(trained) == 42
        assert not any(one.described in request for request in trained)
        assert config.output_dir == str(surveys.run_of(one, 0))


def test_probabilities_are_those_of_every_prompt_of_a_folder(tmp_path, tiny_model_folder, monkeypatch):
    monkeypatch.setattr("benchmarks.study.abilities.BUILTIN", str(tiny_model_folder))
    write(tmp_path)
    found = survey_measure.measure(tmp_path / "prompts" / "democrats-men-18-to-49", None)
    assert set(found) == {f"democrats-men-18-to-49/{question}" for question in QUESTIONS}
    assert all(len(q) == 3 and 0 < sum(q) < 1 for q in found.values())


def done(stage, content):
    stage.product.parent.mkdir(parents=True, exist_ok=True)
    stage.product.write_text(json.dumps(content))
    journal = stages.read_journal()
    journal[stage.name] = {"command": stage.told, "done": True, "seconds": 1}
    stages.write_json(stages.JOURNAL, journal)


def table(name):
    return [line.strip("| ").split(" | ") for line in page.filled(f"<!-- table: {name} -->\n<!-- end -->\n").splitlines()[1:-1]]


def test_the_table_shows_only_groups_that_are_measured(workplace):
    assert list(surveys.lines(stages.read_journal())) == []
    assert table("surveys") == [["Not measured yet."]]
    written, untuned, *folds = surveys.stages(0)
    done(written, "")
    done(untuned, {f"{one.name}/{question}": [0.0, 0.0, 0.25] for one in COUNTS for question in QUESTIONS})
    for one, train, measured in zip(list(COUNTS)[:2], folds[::2], folds[1::2], strict=False):
        done(train, {"retention_kl": 0.0625, "training_seconds": 60, "exact_kl": {"a": 0.25, "b": 0.75}})
        done(measured, {f"{one.name}/{question}": shares(COUNTS[one][question]).tolist() for question in QUESTIONS})
    found = list(surveys.lines(stages.read_journal()))
    assert len(found) == 2 * 6
    assert (found[0]["drift"], found[0]["train_seconds"], found[0]["trained_kl"]) == (0.0625, 60, 0.5)
    with (workplace / "surveys.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    head, _, *rows = table("surveys")
    assert (
        head[0] == "prediction (2 groups × 6 questions, 1 seed; tuned models: mean KL on trained prompts 0.500 nats, drift 0.062)"
    )
    by_name = {cells[0]: cells[1:] for cells in rows}
    floor = np.mean([line["floor"] for line in found])
    assert by_name["**tuned model, exact**"] == ["100.0", "0.000", f"{-floor:.3f}", "-", "-"]
    assert by_name["untuned model, exact"][0] == "25.0"
    uniform = np.mean([line["tvd_uniform"] for line in found])
    assert by_name["equal shares"] == ["100", f"{uniform:.3f}", f"{uniform - floor:.3f}", f"{uniform:+.3f}", "100"]
    assert by_name["sampling floor: the group's own people, drawn again"][1] == f"{floor:.3f}"
