"""How many different answers come among ten: by hand, by listing every choice, and against populations that are known."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.evaluation.distinctness import distinct_of, normalised


def test_an_example_by_hand():
    # 12 answers: a 9 times, b twice, c once. C(12, 10) = 66 choices leave out two answers: a is always there, b is missing in one, c in 11.
    value, _ = distinct_of({"a": 9, "b": 2, "c": 1})
    assert value == pytest.approx(3 - 1 / 66 - 11 / 66)


def test_ten_answers_are_counted_and_fewer_say_nothing():
    value, error = distinct_of({"a": 7, "b": 3})
    assert value == pytest.approx(2)
    assert math.isnan(error)
    assert all(math.isnan(figure) for figure in distinct_of({"a": 7, "b": 2}))
    assert all(math.isnan(figure) for figure in distinct_of({}))


def listed(answers, draws):
    """The same from every choice of `draws` answers."""
    chosen = [len(set(some)) for some in combinations(answers, draws)]
    return sum(chosen) / len(chosen)


@given(st.lists(st.sampled_from("abcd"), min_size=5, max_size=9), st.integers(1, 4))
def test_it_agrees_with_every_choice_listed_one_by_one(answers, draws):
    value, error = distinct_of(Counter(answers), draws)
    assert value == pytest.approx(listed(answers, draws))
    without_one = [listed(answers[:place] + answers[place + 1 :], draws) for place in range(len(answers))]
    n = len(answers)
    if len(set(Counter(answers).values())) == 1 or n == draws:
        assert math.isnan(error)
    else:
        assert error == pytest.approx(math.sqrt((n - 1) * np.var(without_one)), abs=1e-7)


@pytest.mark.parametrize(("counts", "value"), [([1] * 200, 10), ([11], 1), ([2] * 10, 10 * (1 - 43758 / 184756))])
def test_equal_counts_say_nothing_of_the_error(counts, value):
    """Ten texts twice each: C(18, 10) = 43758 of the C(20, 10) = 184756 choices miss a given one."""
    found, error = distinct_of({f"text {i}": count for i, count in enumerate(counts)})
    assert found == pytest.approx(value)
    assert math.isnan(error)


@pytest.mark.parametrize(("shares", "too_large"), [([0.5, 0.3, 0.1, 0.05, 0.05], 1.1), ([0.1] * 10, 1.6)])
def test_on_average_the_value_is_that_of_ten_draws_and_the_error_not_below_its_spread(shares, too_large):
    rng, shares = np.random.default_rng(0), np.array(shares)
    found = [distinct_of({str(i): int(c) for i, c in enumerate(counts) if c}) for counts in rng.multinomial(100, shares, size=1000)]
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx((1 - (1 - shares) ** 10).sum(), abs=4 * values.std() / math.sqrt(1000))
    assert 0.95 * values.std() <= math.sqrt((errors**2).mean()) <= too_large * values.std()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  Blue\n", "blue"), ("{BLUE}", "blue"), ("**Blue**.", "blue"), ("“Blue!”", "blue"), ("light\n blue", "Light  blue"), ("STRASSE", "straße"),
    ],
)  # fmt: skip
def test_case_spaces_and_signs_at_the_ends_make_no_other_answer(text, same):
    assert normalised(text) == normalised(same)
    assert distinct_of({text: 6, same: 4})[0] == pytest.approx(1)


@pytest.mark.parametrize(("text", "other"), [("-5", "5"), (".5", "5"), ("5 %", "5"), ("C++", "C"), ("💙", "💚"), ("?", "!"), ("light blue", "lightblue")])  # fmt: skip
def test_signs_that_mean_something_make_another_answer(text, other):
    assert normalised(text) != normalised(other)
    assert distinct_of({text: 5, other: 5})[0] == pytest.approx(2)
