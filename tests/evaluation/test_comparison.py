"""Differences between two samplers: their value by hand, their interval by simulation."""

import math
from collections import Counter

import numpy as np
import pytest

from diffusecli.evaluation.comparison import Estimate, compare
from diffusecli.evaluation.sample_set import SampleSet
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.verbs.evaluate import Question, evaluate

TEN = (0.1,) * 10
LEANING = (0.4, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05, 0.04, 0.03, 0.03)


def drawn(rng, q, n=300):
    return Tally(tuple(rng.multinomial(n, q).tolist()), Counter())


def test_a_difference_is_that_of_the_figures():
    found = compare(Tally((60, 40), Counter()), Tally((50, 50), Counter()), (0.5, 0.5), 0)
    assert found.excess_tvd.value == pytest.approx(-0.1)
    assert found.entropy.value == pytest.approx(math.log(2) + 0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert found.excess_tvd.low < -0.1 < found.excess_tvd.high


@pytest.mark.parametrize(("one", "other"), [(LEANING, TEN), (TEN, TEN), (LEANING, LEANING)])
def test_intervals_cover_the_difference_about_as_often_as_they_say(one, other):
    rng = np.random.default_rng(0)
    tvd = [np.mean(np.abs(rng.multinomial(300, q, size=4000) / 300 - 0.1).sum(1) / 2) for q in (one, other)]
    h = [-sum(p * math.log(p) for p in q) for q in (one, other)]
    covered = np.zeros(2)
    for seed in range(150):
        found = compare(drawn(rng, one), drawn(rng, other), TEN, seed)
        covered += [
            found.excess_tvd.low <= tvd[1] - tvd[0] <= found.excess_tvd.high,
            found.entropy.low <= h[1] - h[0] <= found.entropy.high,
        ]
    assert (covered / 150 >= 0.89).all()


@pytest.mark.parametrize("q", [LEANING, TEN, (0.91, *(0.01,) * 9)])
def test_the_same_sampler_at_another_n_stands_apart_as_seldom_as_at_the_same(q):
    """Two hundred answers against a thousand: a floor that is subtracted would favour the larger set."""
    rng = np.random.default_rng(0)
    found = [compare(drawn(rng, q, 200), drawn(rng, q, 1000), TEN, seed) for seed in range(150)]
    assert np.mean([one.excess_tvd.apart for one in found]) <= 0.11
    assert np.mean([one.entropy.apart for one in found]) <= 0.11
    assert abs(np.mean([one.excess_tvd.value for one in found])) < 0.01


def test_samplers_that_are_wholly_off_target_do_not_differ():
    before, after = (Tally((0,) * 10, Counter({f"junk {i}": 2 for i in range(n // 2)})) for n in (200, 1000))
    found = compare(before, after, TEN, 0)
    assert found.excess_tvd.value == pytest.approx(0)
    assert not found.excess_tvd.apart


def test_identical_answers_do_not_stand_apart():
    same = Tally((30, 0), Counter({"junk": 30}))
    assert not any(compare(same, same, (0.5, 0.5), seed).excess_tvd.apart for seed in range(50))


def test_off_target_answers_count_in_both():
    found = compare(Tally((50, 50), Counter()), Tally((25, 25), Counter({"x": 25, "y": 25})), (0.5, 0.5), 0)
    assert found.excess_tvd.value == pytest.approx(0.5)
    assert found.entropy.value == pytest.approx(math.log(4) - math.log(2) + 2 / 200)


@pytest.mark.parametrize(
    "side", [Tally((20, 20), Counter()), Tally((0, 0), Counter({str(i): 1 for i in range(150_000)}))], ids=["too few", "too many"]
)
def test_answers_that_do_not_tell_how_they_scatter_have_no_interval(side):
    found = compare(side, side, (0.5, 0.5), 0)
    assert math.isnan(found.entropy.low)
    assert not found.entropy.apart


def test_entropy_of_answers_that_are_mostly_unseen_has_no_interval_but_the_distance_has():
    junk = Tally((50, 50), Counter({str(i): 1 for i in range(100)}))
    found = compare(junk, junk, (0.5, 0.5), 0)
    assert math.isnan(found.entropy.low)
    assert not math.isnan(found.excess_tvd.low)


def test_without_targets_only_entropy_is_compared():
    found = compare(Tally((), Counter(a=90, b=10)), Tally((), Counter(a=50, b=50)), (), 0)
    assert math.isnan(found.excess_tvd.value)
    assert found.entropy.apart


@pytest.mark.parametrize(("low", "high", "apart"), [(-1, 1, False), (0.1, 1, True), (-2, -1, True), (0, 1, False)])
def test_an_estimate_stands_apart_when_its_interval_leaves_zero_out(low, high, apart):
    assert Estimate(0.5, low, high).apart is apart


def test_counts_beyond_what_numpy_draws_without_replacement_are_thinned_all_the_same(tmp_path):
    (tmp_path / "p.json").write_text('{"request": "r", "targets": ["a", "b"]}')
    for name, counts in (("few", '{"a": 60, "b": 40}'), ("many", '{"a": 2147483648, "b": 2147483648}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gen.lora.json").write_text(f'{{"{tmp_path}/p.json": {counts}}}')
    (difference,) = evaluate([tmp_path / "few", tmp_path / "many"]).differences
    assert difference


def test_a_comparison_does_not_change_with_its_company():
    """The same pair alone, after other runs and prompts, and with another run first."""
    coin, die = (
        Prompt(request="Toss.", targets=("a", "b"), alias="coin.json"),
        Prompt(request="Roll.", targets=("1", "2"), alias="die.json"),
    )
    drawn_by = {"one": {"a": 60, "b": 40}, "two": {"a": 300, "b": 100, "c": 50}, "more": {"a": 90, "b": 110}}

    def differences(*names, before=()):
        sets = (*before, *(SampleSet(name, "lora", coin, Answers(drawn_by[name])) for name in names))
        return {(d.before.run, d.after.run): d for d in evaluate([], Question(given=sets)).differences if d.prompt == coin}

    others = [SampleSet(name, "lora", die, Answers({"1": 70, "2": n})) for name, n in (("x", 50), ("y", 90))]
    alone = differences("one", "two")["one", "two"]
    for found in (differences("one", "more", "two"), differences("one", "two", before=others)):
        assert found["one", "two"].excess_tvd == alone.excess_tvd
        assert found["one", "two"].entropy == alone.entropy
    exchanged = differences("two", "one")["two", "one"]
    assert exchanged.excess_tvd.value == -alone.excess_tvd.value
    assert exchanged.entropy.low == pytest.approx(-alone.entropy.high, abs=1e-12)
