"""Families against arithmetic done by hand or exactly, and what they refuse."""

import math
import shlex
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.prompts.catalogue import FAMILIES, catalogue, make_distribution
from diffusecli.prompts.families import binomial, choices, dates, dice, geometric, poisson, scipy, uniform, zipf
from diffusecli.system.errors import InputError


def as_dict(distribution):
    weights = distribution.weights or [1 / len(distribution.outcomes)] * len(distribution.outcomes)
    return dict(zip(distribution.outcomes, weights, strict=True))


def test_two_dice_by_hand():
    expected = {str(total): (6 - abs(total - 7)) / 36 for total in range(2, 13)}
    assert as_dict(dice("2d6")) == pytest.approx(expected, abs=1e-9)


def test_dice_with_a_constant_and_a_single_die():
    assert dice("d4+10").outcomes == ("11", "12", "13", "14")
    assert as_dict(dice("3d6"))["10"] == pytest.approx(27 / 216, abs=1e-9)


def test_binomial_to_nine_digits_by_exact_fractions():
    p = Fraction(1, 5)
    exact = [float(f"{float(math.comb(10, k) * p**k * (1 - p) ** (10 - k)):.9g}") for k in range(11)]
    assert list(binomial(10, 0.2).weights) == exact


def test_an_infinite_support_is_cut_where_the_tail_is_small_and_says_so():
    four = poisson(4.0, tail=1e-6)
    beyond = 1 - sum(math.exp(-4) * 4**k / math.factorial(k) for k in range(len(four.outcomes)))
    before = 1 - sum(math.exp(-4) * 4**k / math.factorial(k) for k in range(len(four.outcomes) - 1))
    assert beyond <= 1e-6 < before
    assert math.fsum(four.weights) == pytest.approx(1, abs=1e-8)
    assert four.notice.startswith(f"cut to 0 … {four.outcomes[-1]}: ")


def test_a_coarser_tail_cuts_more():
    assert len(geometric(0.25, tail=1e-2).outcomes) < len(geometric(0.25).outcomes)


def test_uniform_steps_are_exact_decimals():
    tenths = uniform("0", "1", step="0.1")
    assert tenths.outcomes == ("0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0")
    assert tenths.weights is None
    assert uniform("-2", "2").outcomes == ("-2", "-1", "0", "1", "2")


def test_zipf_weights_are_inverse_ranks():
    assert as_dict(zipf(1.0, 3)) == pytest.approx({"1": 6 / 11, "2": 3 / 11, "3": 2 / 11}, abs=1e-9)


def test_scipy_discrete_and_rounded_continuous():
    assert as_dict(scipy("bernoulli(0.25)")) == pytest.approx({"0": 0.75, "1": 0.25})
    iq = as_dict(scipy("norm(loc=100, scale=15)", decimals=0))
    phi = (math.erf(0.5 / 15 / math.sqrt(2)) + 1) / 2
    assert iq["100"] == pytest.approx(2 * phi - 1, rel=1e-5)
    assert iq["85"] == pytest.approx(iq["115"])
    assert scipy("uniform(0, 1)", decimals=1).outcomes[0] == "0.0"


def test_days_written_alike_are_added_up():
    week = as_dict(dates("2024-06-01", "2024-06-08", date_format="%A"))
    assert week["Saturday"] == pytest.approx(2 / 8)
    assert week["Sunday"] == pytest.approx(1 / 8)
    assert dates("2024-02-28", "2024-03-01").outcomes == ("February 28", "February 29", "March 1")


def test_choices_with_and_without_weights():
    assert as_dict(choices("rock=1, paper=1, scissors=2")) == {"rock": 1, "paper": 1, "scissors": 2}
    assert choices("a,b,c").weights is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("uniform", ("2", "1"), "LO must not be above HI"),
        ("uniform", ("a", "1"), "'a' is not a number"),
        ("uniform", ("0", "1e9"), "at most 100000 are allowed. Raise --step"),
        ("binomial", (0, 0.5), "N must be 1 or more"),
        ("binomial", (2, 1e-308), "Use less extreme parameters"),
        ("uniform", ("0", "1e999999"), "at most 20 digits"),
        ("poisson", 1e18, "more than 100000 outcomes have mass"),
        ("zipf", (-1000.0, 20), "S between -50 and 50"),
        ("dice", "999d100", "at most 100 dice"),
        ("scipy", "zipf(1.1)", "more than 100000 outcomes have mass"),
        ("scipy", "poisson(4, loc=0.5)", "has no mass on whole numbers"),
        ("bernoulli", 1.5, "P must be between 0 and 1"),
        ("poisson", -1.0, "LAM must be above 0"),
        ("geometric", 0.0, "P must be above 0"),
        ("dice", "6", "write it like 2d6"),
        ("dice", "999d9999", "at most 100000 are allowed"),
        ("zipf", (1.0, 0), "N must be 1 or more"),
        ("scipy", "norm(0, 1)", "Round it with --decimals"),
        ("scipy", "nrm(0, 1)", "Did you mean 'norm'?"),
        ("scipy", "norm(0, -1)", "outside its domain"),
        ("scipy", "norm(1, 2, 3, 4)", "has the parameters"),
        ("scipy", "__import__('os').system('x')", "is not a call"),
        ("scipy", "norm(open('x'))", "cannot be read"),
        ("scipy", "norm(", "cannot be read"),
        ("dates", ("2024-02-30", "2024-03-01"), "YEAR-MONTH-DAY"),
        ("dates", ("2024-03-02", "2024-03-01"), "must not be after"),
        ("choices", "a=1,b=x", "the weight 'x' of 'b' is not a number"),
        ("choices", "a=1,a=2", "each name may occur only once"),
        ("choices", "a=0,b=0", "at least one weight must be above 0"),
        ("choices", "a=1,b=-2", "the weight -2 of 'b' must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(name, value, message):
    with pytest.raises(InputError) as caught:
        make_distribution(name, value, {})
    assert message in str(caught.value)


def test_parameters_at_the_ends_of_their_domain_are_fine():
    assert as_dict(geometric(1.0)) == {"1": 1.0}
    assert as_dict(make_distribution("bernoulli", 0.0, {})) == {"0": 1.0, "1": 0.0}
    assert 0 not in scipy("uniform(0.6, 1)", decimals=0).weights


def test_numbers_too_large_to_tell_apart_are_refused():
    with pytest.raises(InputError, match="too large to be distinguished"):
        scipy("norm(1e17, 10)", decimals=0)


def test_days_that_are_written_alike_are_asked_for_by_their_dates():
    june = dates("2024-06-01", "2024-06-30", date_format="%A")
    assert "from 2024-06-01 to 2024-06-30" in june.request
    assert math.fsum(june.weights) == pytest.approx(1)
    with pytest.raises(InputError, match="writes nothing"):
        dates("2024-06-01", "2024-06-30", date_format="")


def test_a_modifier_that_does_not_go_with_the_family_is_refused():
    with pytest.raises(InputError, match=r"--step has no effect with --dice\. Use it with --uniform"):
        make_distribution("dice", "2d6", {"step": "2"})


def as_on_the_command_line(family):
    """What the option of a family takes in its example."""
    words = [kind(word) for kind, word in zip(family.arguments, shlex.split(family.example)[1:], strict=True)]
    return words[0] if len(words) == 1 else tuple(words)


@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_every_family_sums_to_one_and_has_distinct_outcomes(name, data):
    examples = {
        "uniform": ("1", str(data.draw(st.integers(1, 50)))),
        "binomial": (data.draw(st.integers(1, 40)), data.draw(st.floats(1e-9, 1))),
        "bernoulli": data.draw(st.floats(1e-9, 1)),
        "poisson": data.draw(st.floats(0.01, 50)),
        "geometric": data.draw(st.floats(0.05, 1)),
        "dice": f"{data.draw(st.integers(1, 5))}d{data.draw(st.integers(1, 12))}",
        "zipf": (data.draw(st.floats(0, 3)), data.draw(st.integers(1, 60))),
        "scipy": "nbinom(5, 0.3)",
        "dates": ("2024-01-01", "2024-12-31"),
        "choices": "a=1,b=2",
    }
    made = make_distribution(name, examples.get(name, as_on_the_command_line(FAMILIES[name])), {})
    assert len(set(made.outcomes)) == len(made.outcomes) > 0
    if made.weights is not None:
        assert math.fsum(made.weights) / (3 if name == "choices" else 1) == pytest.approx(1, abs=1e-6)
        assert min(made.weights) >= 0


def test_the_catalogue_names_every_family_with_an_example_that_works():
    assert len(FAMILIES) >= 13
    assert {example.split()[0] for example, _ in catalogue()} == {f"--{name}" for name in FAMILIES} | {"--from"}
    assert all(example.startswith("--") for example, _ in catalogue())


def test_choices_have_all_a_weight_or_none():
    with pytest.raises(InputError, match=r"'tails' has no weight, but others do\. Give weights to all or none"):
        choices("heads=0.7, tails")


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("heads:0.7,tails:0.3", {"heads": 0.7, "tails": 0.3}), ("heads: 70%, tails: 30%", {"heads": 0.7, "tails": 0.3}), ("heads=70%,tails=30%", {"heads": 0.7, "tails": 0.3}),
        ("heads - 70%,tails - 30%", {"heads": 0.7, "tails": 0.3}), ("heads 0.7,tails 0.3", {"heads": 0.7, "tails": 0.3}), ("a – 0.7, b – 0.3", {"a": 0.7, "b": 0.3}),
        ("heads-70%,tails-30%", {"heads": 0.7, "tails": 0.3}), ("heads 0.7, tails: 0.3", {"heads": 0.7, "tails": 0.3}), ("heads (0.7), tails (0.3)", {"heads": 0.7, "tails": 0.3}),
        ("heads (70%), tails (30%)", {"heads": 0.7, "tails": 0.3}), ("heads -> 0.7, tails -> 0.3", {"heads": 0.7, "tails": 0.3}), ("1:0.7,2:0.3", {"1": 0.7, "2": 0.3}),
        ('{"heads": 0.7, "tails": 0.3}', {"heads": 0.7, "tails": 0.3}), ("10:30=2,11:45=1", {"10:30": 2, "11:45": 1}), ('"a, b"=2,c=1', {"a, b": 2, "c": 1}), ("a=b=2,c=1", {"a=b": 2, "c": 1}),
    ],
)  # fmt: skip
def test_weights_of_choices_are_read_as_they_are_written(listing, expected):
    assert as_dict(choices(listing)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "listing", ["heads=0.5,tails=0.5", "heads=50%,tails=50%", '{"heads": 0.5, "tails": 0.5}', "heads=2,tails=2", "heads,tails"]
)
def test_choices_of_equal_weight_are_asked_for_as_equally_likely(listing):
    made = choices(listing)
    assert (made.weights, made.request) == (None, "Pick one of these at random, all equally likely: heads, tails.")
    assert (
        choices("heads=3,tails=1").request == "Pick one of these at random, with these probabilities: heads (0.75), tails (0.25)."
    )


@pytest.mark.parametrize(
    ("listing", "outcomes"),
    [
        ("10:30,11:45", ("10:30", "11:45")), ("9:05 am, 9:10 am", ("9:05 am", "9:10 am")), ('["heads:0.5", "a, b"]', ("heads:0.5", "a, b")), ("['a', 'b']", ("a", "b")), ('"a, b", c', ("a, b", "c")),
        ("a, b", ("a", "b")), ("note: this, that", ("note: this", "that")), ("Agent 47, Room 101", ("Agent 47", "Room 101")), ('5" pipe,6" pipe', ('5" pipe', '6" pipe')), ("[a],[b]", ("[a]", "[b]")),
        ("New York", ("New York",)), ("Route 66, Route 99", ("Route 66", "Route 99")), ("Agent 50, Bond", ("Agent 50", "Bond")), ("0-49,50-51", ("0-49", "50-51")), ("COVID-19", ("COVID-19",)),
    ],
)  # fmt: skip
def test_choices_that_look_a_little_like_weights_are_targets(listing, outcomes):
    assert (choices(listing).outcomes, choices(listing).weights) == (outcomes, None)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("heads:0.5", "--choices: 'heads:0.5' ends like a weight. Write heads=0.5 if it is one"), ("heads:0.5,tails", "'heads:0.5' ends like a weight"),
        ("heads:2,tails:1", "Write heads=2 if it is one. If the target itself ends like this, write a JSON list"), ("John 3:16,Luke 2:1", "'John 3:16' ends like a weight"), ("2:1,1:0", "'2:1' ends like a weight"),
        ("heads 50,tails 50", "'heads 50' ends like a weight. Write heads=50 if it is one"), ("heads - 50,tails - 50", "'heads - 50' ends like a weight. Write heads=50"), ("a-1,b-0", "'a-1' ends like a weight"),
        ("heads 50%", "'heads 50%' ends like a weight"), ("heads:0.5,tails:0.2", "'heads:0.5' ends like a weight"),
        ("heads;tails", "has ';' between the choices. Separate them with commas"), ("a=1;b=2", "Separate them with commas"), ("a|b", "Separate them with commas"), ("rock 1 paper 2", "Write rock=1,paper=2. If it is one target, quote it: '\"rock 1 paper 2\"'"), ("a\nb", "Separate them with commas"),
        ("heads=0,5,tails=0,5", "'5' has no weight, but others do. Give weights to all or none. Decimals are written with a point"), ("a=1/2,b=1/2", "the weight '1/2' of 'a' is not a number"),
        ('[["a", 1]]', "a JSON list must hold texts"), ('{"a": "x"}', "the weight 'x' of 'a' is not a number"), ("a,,b", "an entry has no name"), ("a,b,", "an entry has no name"),
    ],
)  # fmt: skip
def test_choices_that_can_be_read_in_two_ways_are_refused(listing, message):
    with pytest.raises(InputError) as caught:
        choices(listing)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("form", "message"),
    [("%Q", "strftime has no code %Q"), ("YYYY-MM-DD", "writes 'YYYY-MM-DD' for every day"), (" ", "writes nothing")],
)
def test_a_date_format_without_a_date_is_refused(form, message):
    with pytest.raises(InputError, match=message):
        dates("2024-06-01", "2024-06-30", date_format=form)
