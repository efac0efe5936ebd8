"""What the study measures of other abilities: each figure by hand, the packed way against rows, and the data files themselves."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.study import abilities
from benchmarks.study.abilities import (
    Question,
    accuracy_figures,
    answer_log_probs,
    answered,
    arithmetic,
    compare,
    measure,
    passage_figures,
    passage_losses,
    read_choices,
    read_passages,
)  # fmt: skip
from diffusecli.models.loading import load_model
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config

TWO = [Question("First?", ("a", "b", "c", "d"), 1, "x"), Question("Second?", ("a", "b", "c", "d"), 0, "y")]


@pytest.fixture(scope="module")
def tiny(tiny_model_folder):
    return load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)


@pytest.fixture(scope="module")
def config(tiny_model_folder):
    return Config.model_validate({"model": str(tiny_model_folder), "output_dir": "unused", "device": "cpu"})


def log_prob_of_continuation(base, before, after):
    """ln q(after | before) from plain logits of one row."""
    with torch.no_grad():
        log_probs = base.model(torch.tensor([[*before, *after]])).logits[0].log_softmax(-1)
    return sum(float(log_probs[len(before) - 1 + place, token]) for place, token in enumerate(after))


def test_the_likeliest_option_is_the_answer_and_its_share_is_among_the_four():
    # shares 1/8, 1/2, 1/4, 1/8 of the four after normalisation, whatever their sum
    log_probs = np.log(np.array([[1, 4, 2, 1], [1, 4, 2, 1]]) / np.array([[100], [1000]]))
    first, second = answered(TWO, log_probs)
    assert (first["chosen"], first["right"]) == (1, True)
    assert first["log_prob"] == pytest.approx(math.log(1 / 2))
    assert (second["chosen"], second["right"]) == (1, False)
    assert second["log_prob"] == pytest.approx(math.log(1 / 8))
    assert second["log_probs"] == pytest.approx(np.log([0.001, 0.004, 0.002, 0.001]))


def test_accuracy_has_wilsons_interval_and_the_mean_log_probability():
    items = [{"right": number < 8, "log_prob": -1.0 if number < 8 else -3.5} for number in range(10)]
    found = accuracy_figures("sums", items)
    # Wilson 1927: (p + z2 / 2n -+ z sqrt(p (1 - p) / n + z2 / 4n2)) / (1 + z2 / n) with p = .8, n = 10, z = 1.959964
    z = stats.norm.ppf(0.975)
    middle, half = 0.8 + z * z / 20, z * math.sqrt(0.016 + z * z / 400)
    assert found == pytest.approx({
        "sums_n": 10, "sums_accuracy": 0.8, "sums_low": (middle - half) / (1 + z * z / 10), "sums_high": (middle + half) / (1 + z * z / 10),
        "sums_log_prob": -1.5,
    })  # fmt: skip
    assert (found["sums_low"], found["sums_high"]) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_perplexity_counts_every_token_alike():
    # 1 token of ln 2 and 3 of ln 4 each: the mean is 7/4 ln 2
    found = passage_figures([{"tokens": 1, "nats": math.log(2)}, {"tokens": 3, "nats": 3 * math.log(4)}])
    assert found == pytest.approx({"passages_n": 2, "passages_tokens": 4, "perplexity": 2**1.75})


def test_options_score_as_the_beginning_of_the_assistants_answer(tiny, config):
    question = Question("Which?", ("Paris", "Pisa", "x", "Rome is it"), 0, "x")
    found = answer_log_probs(tiny, [question, question], config, print)
    asked = tiny.tokenizer.apply_chat_template([{"role": "user", "content": "Which?"}], add_generation_prompt=True)["input_ids"]
    expected = [log_prob_of_continuation(tiny, asked, tiny.tokenizer(option)["input_ids"]) for option in question.options]
    assert found == pytest.approx(np.array([expected, expected]), abs=1e-4)


def test_a_passage_is_predicted_token_by_token_after_its_first(tiny):
    (found,) = passage_losses(tiny, ["Some words."])
    first, *rest = tiny.tokenizer("Some words.")["input_ids"]
    assert found["tokens"] == len("Some words.") - 1, "the tiny tokenizer has a token for each byte"
    assert found["nats"] == pytest.approx(-log_prob_of_continuation(tiny, [first], rest), abs=1e-3)


def result(right, log_probs, nats, sha256="same"):
    """What `measure` gives, of so many items as flags and figures are given."""
    items = [{"right": flag, "log_prob": log_prob} for flag, log_prob in zip(right, log_probs, strict=True)]
    passages = [{"tokens": 10, "nats": value} for value in nats]
    return {"asked": {"sha256": sha256}, "items": {"choices": items, "arithmetic": items, "passages": passages}}


def test_a_comparison_tests_the_questions_that_changed_and_pairs_the_rest():
    before = result([True] * 8 + [False] * 4, [-1.0] * 12, [20.0, 30.0, 40.0])
    after = result([False] * 6 + [True] * 3 + [False] * 3, [-1.5] * 12, [21.0, 32.0, 43.0])
    found = compare(before, after)
    choices = found["choices"]
    assert (choices["n"], choices["lost"], choices["gained"], choices["accuracy_change"]) == (12, 6, 1, pytest.approx(-5 / 12))
    assert choices["p_value"] == pytest.approx(2 * (1 + 7) / 2**7)  # at most 1 of 7 on one side, twice
    assert [choices[f"log_prob_{name}"] for name in ("change", "change_low", "change_high")] == pytest.approx([-0.5] * 3)
    # changes per token .1, .2, .3: mean .2, standard error .1 / sqrt 3, t(.975, 2) = 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert found["passages"] == pytest.approx({
        "nats_per_token_change": 0.2, "nats_per_token_change_low": 0.2 - half, "nats_per_token_change_high": 0.2 + half,
        "perplexity_factor": math.exp(0.2), "perplexity_factor_low": math.exp(0.2 - half), "perplexity_factor_high": math.exp(0.2 + half),
    }, abs=1e-6)  # fmt: skip


def test_intervals_of_changes_are_those_of_the_paired_t_test():
    dice = np.random.default_rng(0)
    nats = dice.normal(30, 5, (2, 8))
    before, after = (result([True, False], [-1.0, -2.0], row) for row in nats)
    found = compare(before, after)["passages"]
    interval = stats.ttest_rel(nats[1] / 10, nats[0] / 10).confidence_interval(0.95)
    assert (found["nats_per_token_change_low"], found["nats_per_token_change_high"]) == pytest.approx(tuple(interval))


def test_nothing_changed_is_no_evidence_of_change():
    one = result([True, False], [-1.0, -2.0], [20.0, 30.0])
    found = compare(one, one)
    assert (found["choices"]["p_value"], found["choices"]["accuracy_change"], found["passages"]["perplexity_factor"]) == (
        1.0,
        0.0,
        1.0,
    )


def test_results_of_other_questions_are_not_compared():
    one, other = result([True, False], [-1, -2], [20, 30]), result([True, False], [-1, -2], [20, 30], "other")
    with pytest.raises(ValueError, match="other questions or another base model: measure both again"):
        compare(one, other)


def test_a_run_is_measured_with_its_adapter_and_untuned_without(trained, monkeypatch, capsys):
    monkeypatch.setattr(abilities, "read_choices", lambda: TWO)
    monkeypatch.setattr(abilities, "arithmetic", lambda: TWO[::-1])
    monkeypatch.setattr(abilities, "read_passages", lambda **_: ["Some words.", "Others."])

    def printed(*words):
        monkeypatch.setattr("sys.argv", ["abilities", *words])
        abilities.main()
        return json.loads(capsys.readouterr().out)

    tuned, untuned = printed(trained.output_dir), printed(trained.output_dir, "--untuned")
    assert (tuned["choices_n"], tuned["arithmetic_n"], tuned["passages_n"]) == (2, 2, 2)
    assert tuned["perplexity"] != untuned["perplexity"]
    found = compare(untuned, tuned)
    change = math.fsum(b["nats"] / b["tokens"] - a["nats"] / a["tokens"] for a, b in
                       zip(untuned["items"]["passages"], tuned["items"]["passages"], strict=True)) / 2  # fmt: skip
    assert found["passages"]["perplexity_factor"] == pytest.approx(math.exp(change))


def test_a_folder_without_a_run_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["abilities", str(tmp_path)])
    with pytest.raises(SystemExit, match="not a run"):
        abilities.main()


def test_neither_a_run_nor_untuned_is_wrong_usage(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["abilities"])
    with pytest.raises(SystemExit):
        abilities.main()
    assert "name a run directory, or say --untuned" in capsys.readouterr().err


def test_measuring_twice_asks_the_same(tiny, config, monkeypatch):
    monkeypatch.setattr(abilities, "read_choices", lambda: TWO)
    monkeypatch.setattr(abilities, "arithmetic", lambda: TWO)
    monkeypatch.setattr(abilities, "read_passages", lambda **_: ["Some words."])
    one = measure(tiny, config, print)
    assert measure(tiny, config, print) == one
    monkeypatch.setattr(abilities, "read_passages", lambda **_: ["Other words."])
    assert measure(tiny, config, print)["asked"]["sha256"] != one["asked"]["sha256"]


def test_a_question_with_two_equal_options_or_an_answer_beyond_them_is_refused():
    with pytest.raises(ValueError, match="four different options"):
        Question("Which?", ("a", "b", "c", "a"), 0, "x")
    with pytest.raises(ValueError, match="an answer from 0 to 3"):
        Question("Which?", ("a", "b", "c", "d"), 4, "x")


@pytest.mark.parametrize("questions", [read_choices(), arithmetic()], ids=["choices", "arithmetic"])
def test_a_set_has_120_different_questions_of_even_kinds_with_the_right_answer_as_often_in_each_place(questions):
    assert len({q.question for q in questions}) == len(questions) == 120
    assert Counter(q.answer for q in questions) == {0: 30, 1: 30, 2: 30, 3: 30}
    assert len(set(Counter(q.kind for q in questions).values())) == 1
    for q in questions:
        assert not any(a != b and b.startswith(a) for a in q.options for b in q.options), q


def test_the_options_of_a_choice_are_of_like_length():
    for q in read_choices():
        assert len({len(option.split()) for option in q.options}) == 1 or max(map(len, q.options)) <= 20, q
        assert max(map(len, q.options)) - min(map(len, q.options)) <= 10, q


def test_the_right_option_is_neither_the_longest_nor_the_shortest_more_often_than_chance():
    ranks = [np.mean([len(o) < len(q.options[q.answer]) for i, o in enumerate(q.options) if i != q.answer]) for q in read_choices()]
    ties = [np.mean([len(o) == len(q.options[q.answer]) for i, o in enumerate(q.options) if i != q.answer]) for q in read_choices()]
    place = np.array(ranks) + np.array(ties) / 2 - 0.5  # 0 where the right one is of middling length
    assert abs(place.mean()) < 2 * stats.sem(place)


def test_sums_are_right_and_wrong_answers_have_as_many_digits():
    for q in arithmetic():
        term = q.question.removeprefix("What is ").removesuffix("?")
        a, sign, b = term.split()
        result = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign]
        assert q.options[q.answer] == f"{term} = {result}"
        assert len({len(option) for option in q.options}) == 1
        assert max(abs(int(option.removeprefix(f"{term} = ")) - result) for option in q.options) <= 10
    assert Counter(q.kind for q in arithmetic()) == {"addition": 40, "subtraction": 40, "multiplication": 40}


def test_sums_follow_from_the_seed():
    assert arithmetic() == arithmetic(0) != arithmetic(1)


def test_the_thirty_passages_are_different_and_of_80_to_120_words():
    passages = read_passages()
    assert len(set(passages)) == len(passages) == 30
    assert all(80 <= len(passage.split()) <= 120 for passage in passages)
    openings = Counter(passage.split()[0] for passage in passages)
    assert openings.most_common(1)[0][1] <= 4


def test_the_passages_of_books_are_240_different_paragraphs_of_60_to_160_words():
    passages = read_passages(many=True)
    assert len(set(passages)) == len(passages) == 240
    assert all(60 <= len(passage.split()) <= 160 for passage in passages)
    assert not any(word in passage for passage in passages for word in ("Gutenberg", "eBook", "Copyright"))
