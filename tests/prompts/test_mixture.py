"""The mixture: what its families draw, what its splits share, which texts it has."""

import math
import re
from fractions import Fraction
from random import Random

import pytest

from diffusecli.prompts.answer_forms import clauses
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.mixture import chances
from diffusecli.prompts.mixture.catalogue import MIXTURE
from diffusecli.prompts.mixture.reserved import distribution_key, is_reserved, reserved_texts, trained_texts
from diffusecli.prompts.mixture.splits import draw_mixture, quotas
from diffusecli.prompts.mixture.texts import own_templates, pools, question_templates
from diffusecli.prompts.wording_bank import placeholders
from diffusecli.system.errors import InputError

OWN = [name for name in MIXTURE if not MIXTURE[name](Random(0)).family]
STATED = [
    "choose",
    "percentages",
    "rest",
    "ranks",
    "odds",
    "counts",
    "raffle",
    "survey",
    "labelled",
    "coin",
    "yes-or-no",
    "two-outcomes",
]


@pytest.fixture(scope="module")
def mixture():
    return draw_mixture(700, 3)


def prompts_of(families):
    return [asked for prompts in families.values() for asked in prompts]


def drawn(name, **facts):
    """What the family draws when these facts come out."""
    for seed in range(20_000):
        found = MIXTURE[name](Random(seed))
        if all(found.facts.get(fact) == value for fact, value in facts.items()):
            return found
    raise AssertionError(f"{name} never has {facts}")


def shares(distribution):
    """Outcome -> probability."""
    count = len(distribution.outcomes)
    return dict(zip(distribution.outcomes, distribution.weights or [1 / count] * count, strict=True))


# --- weights worked out by hand


def test_an_urn_without_putting_back_counts_combinations():
    # C(2,k) C(3,2-k) / C(5,2): 1*3, 2*3, 1*1 of 10
    assert shares(drawn("hypergeometric", good="2", bad="3", drawn="2")) == pytest.approx({"0": 0.3, "1": 0.6, "2": 0.1})


def test_an_urn_with_putting_back_is_binomial():
    # half of the balls are good: 1, 2, 1 of 4
    assert shares(drawn("urn", good="3", bad="3", drawn="2")) == pytest.approx({"0": 0.25, "1": 0.5, "2": 0.25})


def test_a_coin_that_decides_between_two_dice_mixes_them():
    # faces 1 to 4: (1/4 + 1/6) / 2 = 5/24; 5 and 6: 1/12
    found = shares(drawn("two-stage", first="4", second="6", coin="a fair coin"))
    assert found == pytest.approx({**dict.fromkeys("1234", 5 / 24), "5": 1 / 12, "6": 1 / 12})


def test_odds_of_three_to_one_are_three_quarters():
    found = drawn("odds", odds="3 to 1")
    assert shares(found) == pytest.approx({found.facts["first"]: 0.75, found.facts["second"]: 0.25})


def test_a_ratio_of_several_is_divided_by_its_sum():
    for seed in range(100):
        found = MIXTURE["odds"](Random(seed))
        numbers = [int(number) for number in re.findall(r"\d+", found.facts["ratio"])]
        assert list(shares(found).values()) == pytest.approx([number / sum(numbers) for number in numbers])


def test_twice_as_likely_is_two_thirds_against_one():
    seen = 0
    for seed in range(300):
        found = MIXTURE["ranks"](Random(seed))
        if len(found.outcomes) == 2 and (parts := re.fullmatch("(.+) is twice as likely as (.+)", found.facts["relations"])):
            assert shares(found) == pytest.approx({parts[1]: 2 / 3, parts[2]: 1 / 3})
            seen += 1
    assert seen


def test_every_relation_of_the_ranks_holds():
    factors = {
        "as": 1,
        "twice as": 2,
        "three times as": 3,
        "four times as": 4,
        "five times as": 5,
        "ten times as": 10,
        "half as": 1 / 2,
    }
    factors |= {"a third as": 1 / 3, "a quarter as": 1 / 4, "one and a half times as": 3 / 2}
    for seed in range(100):
        found = MIXTURE["ranks"](Random(seed))
        for line in found.facts["block"].split("\n- ")[1:]:
            first, words, second = re.fullmatch(r"(.+?) is (\D*?as) likely as (.+)", line).groups()
            assert shares(found)[first] / shares(found)[second] == pytest.approx(factors[words], rel=1e-6)


def test_sectors_of_a_spinner_have_their_part_of_360_degrees():
    for seed in range(100):
        found = MIXTURE["spinner"](Random(seed))
        angles = [int(angle) for angle in re.findall(r"(\d+)(?:°| degrees)", found.facts["sectors"])]
        assert sum(angles) == 360
        assert list(shares(found).values()) == pytest.approx([angle / 360 for angle in angles])


def test_balls_of_a_colour_weigh_as_many_as_there_are():
    # 7 red of 10 and so on: read from the lines
    found = MIXTURE["counts"](Random(5))
    numbers = [int(number) for number in re.findall(r"\d+", found.facts["block"])]
    assert list(shares(found).values()) == pytest.approx([number / sum(numbers) for number in numbers])
    assert found.facts["total"] == str(sum(numbers))


def test_the_highest_of_two_dice_with_four_sides():
    # pairs whose larger number is 1, 2, 3, 4: 1, 3, 5, 7 of 16
    found = shares(drawn("dice-extremes", count="2", sides="4", extreme="highest"))
    assert found == pytest.approx({"1": 1 / 16, "2": 3 / 16, "3": 5 / 16, "4": 7 / 16})


def test_the_difference_of_two_dice_with_four_sides():
    # differences 0, 1, 2, 3 of 16 pairs: 4, 6, 4, 2
    assert shares(drawn("dice-pair", sides="4", what="the absolute difference")) == pytest.approx(
        {"0": 4 / 16, "1": 6 / 16, "2": 4 / 16, "3": 2 / 16}
    )


def test_the_first_of_two_good_ones_among_four():
    # place 1: 2/4; place 2: 2/4 * 2/3; place 3: 2/4 * 1/3
    assert shares(drawn("first-match", total="4", good="2")) == pytest.approx({"1": 1 / 2, "2": 1 / 3, "3": 1 / 6})


def test_a_triangle_falls_by_the_same_step_to_zero():
    # weights 1/2, 1, 1/2 of a triangle from 0 over 2 to 4
    assert shares(drawn("triangular", below="0", peak="2", above="4")) == pytest.approx({"1": 0.25, "2": 0.5, "3": 0.25})


def test_a_deck_without_a_card_has_fewer_of_its_suit():
    deck = "a standard deck of 52 cards from which the queen of hearts has been removed"
    found = shares(drawn("cards", deck=deck, aspect="suit"))
    assert found == pytest.approx({"hearts": 12 / 51, "diamonds": 13 / 51, "clubs": 13 / 51, "spades": 13 / 51})


def test_a_chain_goes_on_from_the_state_it_is_in():
    for seed in range(50):
        found = MIXTURE["markov"](Random(seed))
        row = next(line for line in found.facts["block"].split("\n") if line.startswith(f"{found.facts['now']}:"))
        assert list(shares(found).values()) == pytest.approx([float(text) / 100 for text in re.findall(r"([\d.]+)%", row)])


def test_waiting_times_that_are_rounded_down_begin_with_what_lies_below_one():
    found = shares(drawn("exponential", mean="2", rounded="rounded down to a whole number"))
    assert found["0"] == pytest.approx(1 - math.exp(-1 / 2), abs=1e-3)  # the far tail is cut


def test_a_mixture_adds_up_its_parts():
    # the normal parts are cut at four deviations, where 6e-5 of them lies beyond
    for seed in range(30):
        found = MIXTURE["mixture-of-two"](Random(seed))
        share = float(found.facts["p"])
        means, ranges = zip(*(_mean(found.facts[part]) for part in ("first", "second")), strict=True)
        mean = sum(int(number) * mass for number, mass in shares(found).items())
        assert mean == pytest.approx(share * means[0] + (1 - share) * means[1], abs=0.01), ranges


def _mean(words):
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", words)]
    return (numbers[0] if "N(" in words or "normal" in words else sum(numbers[:2]) / 2), words


# --- chances in words


def test_shares_are_positive_and_make_exactly_one():
    for seed in range(200):
        parts = chances.shares(seed % 11 + 2, Random(seed))
        assert sum(parts) == 1
        assert min(parts) > 0


@pytest.mark.parametrize("notation", chances.NOTATIONS)
def test_a_notation_says_a_probability_exactly_or_not_at_all(notation):
    values = {"decimal": Fraction, "bare point": Fraction, "fraction": Fraction}
    for hundred in range(101):
        text = chances.written(Fraction(hundred, 100), notation)
        if text is None or "words" in notation:
            continue
        numbers = [Fraction(number) for number in re.findall(r"[\d./]+", text)]
        value = numbers[0] if notation in values else numbers[0] / (numbers[1] if len(numbers) > 1 else 100)
        assert value == Fraction(hundred, 100), text
    assert chances.written(Fraction(1, 3), "decimal") is None


# --- all families


@pytest.mark.parametrize("name", sorted(MIXTURE))
def test_the_weights_of_a_family_sum_to_one(name):
    for seed in range(20):
        found = MIXTURE[name](Random(seed))
        assert sum(shares(found).values()) == pytest.approx(1, abs=1e-6)
        assert min(shares(found).values(), default=0) >= 0


def test_there_are_enough_families():
    held_out = [family for family in MIXTURE.values() if family.held_out]
    assert len(held_out) >= 5
    assert len(MIXTURE) - len(held_out) >= 24


@pytest.mark.parametrize("name", OWN)
def test_a_family_has_twelve_questions_and_facts_for_each(name):
    texts = own_templates(name)
    assert len(set(texts)) == len(texts) >= 12
    facts = {fact for seed in range(300) for fact in MIXTURE[name](Random(seed)).facts}
    assert {fact for text in texts for fact in placeholders(text)} <= facts


def test_words_of_a_list_differ():
    assert all(len({word.casefold() for word in words}) == len(words) for words in pools().values())
    assert sum(map(len, pools().values())) > 500


# --- splits


def test_the_training_split_has_as_many_prompts_as_asked_and_the_others_a_tenth(mixture):
    sizes = {split: len(prompts_of(families)) for split, families in mixture.items()}
    assert sizes["train"] == 700
    assert all(70 <= size <= 80 for split, size in sizes.items() if split != "train")


def test_no_request_is_there_twice(mixture):
    requests = [asked.request for families in mixture.values() for asked in prompts_of(families)]
    assert len(set(requests)) == len(requests)


def test_held_out_parameters_and_families_have_no_distribution_that_is_trained(mixture):
    trained = {distribution_key(asked.distribution) for asked in prompts_of(mixture["train"])}
    for split in ("held-out/parameters", "held-out/families"):
        assert trained.isdisjoint(distribution_key(asked.distribution) for asked in prompts_of(mixture[split]))


def test_held_out_wordings_have_no_question_and_no_clause_that_is_trained(mixture):
    trained, apart = prompts_of(mixture["train"]), prompts_of(mixture["held-out/wordings"])
    assert {asked.question for asked in trained}.isdisjoint(asked.question for asked in apart)
    assert {asked.clause for asked in trained}.isdisjoint(asked.clause for asked in apart)


def test_held_out_families_are_never_trained(mixture):
    assert len(mixture["held-out/families"]) >= 5
    assert mixture["train"].keys().isdisjoint(mixture["held-out/families"])


def test_what_is_reserved_is_so_for_every_seed(mixture):
    other = draw_mixture(100, 4)
    for split, reserved in (
        ("train", False),
        ("held-out/wordings", False),
        ("held-out/parameters", True),
        ("held-out/families", True),
    ):
        assert all(is_reserved(asked.distribution) == reserved for asked in prompts_of(mixture[split]) + prompts_of(other[split]))
    texts = {asked.question for asked in prompts_of(other["train"])}
    assert texts.isdisjoint(asked.question for asked in prompts_of(mixture["held-out/wordings"]))


def test_a_seed_makes_the_same_mixture_and_another_seed_another():
    first, again, other = (draw_mixture(60, seed) for seed in (1, 1, 2))
    assert first == again
    assert [asked.request for asked in prompts_of(first["train"])] != [asked.request for asked in prompts_of(other["train"])]


def test_fewer_prompts_than_families_are_refused():
    with pytest.raises(InputError, match=r"--mixture 10: must be \d+ or more"):
        draw_mixture(10, 0)


def test_what_the_request_states_are_the_targets(mixture):
    for split in mixture.values():
        for name in STATED:
            for asked in split.get(name, []):
                for outcome in asked.distribution.outcomes:
                    assert outcome in asked.request, asked.request


def test_no_request_keeps_a_placeholder_or_a_place_for_phrases(mixture):
    for families in mixture.values():
        for asked in prompts_of(families):
            shown = {asked.distribution.noun, *asked.distribution.outcomes}
            assert not any(f"{{{name}}}" in asked.request for name in {*placeholders(asked.question)} - shown), asked.request
            assert not re.search(r"<[^<>]*\|[^<>]*>", asked.request), asked.request


def test_about_half_of_the_mixture_states_options_and_three_quarters_answer_in_braces(mixture):
    trained = mixture["train"]
    assert 0.4 < sum(len(trained[name]) for name in STATED) / 700 < 0.7
    braced = sum(asked.prompt.targets[0].startswith("{") for asked in prompts_of(trained))
    assert 0.68 < braced / 700 < 0.82


def test_bernoulli_is_trained_for_three_quarters_of_all_chances_of_two_decimals():
    split = draw_mixture(2500, 0)["train"]
    prompts = [asked.prompt for name in ("bernoulli", "trial", "coin", "yes-or-no", "two-outcomes") for asked in split[name]]
    trained = {round(share, 9) for prompt in prompts for share in prompt.probabilities}
    reserved = {hundred for hundred in range(101) if is_reserved(Distribution(("1", "0"), (hundred / 100, 1 - hundred / 100), ""))}
    assert 18 <= len(reserved) <= 33
    assert {hundred for hundred in range(101) if hundred / 100 in trained} == set(range(101)) - reserved


def test_every_fifth_text_is_reserved():
    texts = [str(number) for number in range(12)]
    assert reserved_texts(texts) == ["4", "9"]
    assert sorted([*trained_texts(texts), "4", "9"]) == sorted(texts)
    for name in MIXTURE:
        assert reserved_texts(question_templates(name, MIXTURE[name](Random(0))))
    assert reserved_texts(clauses("{%s}"))


def test_the_key_of_parameters_goes_by_shares_and_not_by_names():
    tea, bus = (Distribution(names, (0.2, 0.3, 0.5), "") for names in (("tea", "milk", "rum"), ("bus", "tram", "car")))
    assert distribution_key(tea) == distribution_key(bus)
    assert distribution_key(Distribution(("1", "0"), (0.37, 0.63), "")) == distribution_key(
        Distribution(("no", "yes"), (0.63, 0.37), "")
    )
    assert distribution_key(Distribution(("a", "b", "c"), None, "")) != distribution_key(Distribution(("a", "b", "d"), None, ""))


def test_quotas_make_the_sum_and_leave_nobody_out():
    for count in (50, 51, 333):
        given = quotas({name: family.share for name, family in MIXTURE.items()}, count + 20)
        assert sum(given.values()) == count + 20
        assert min(given.values()) >= 1
