"""Records with independent fields, whose combinations are not listed: against the list of all combinations."""

import json
from collections import Counter
from itertools import product

import numpy as np
import pytest

from diffusecli.api.prompts import init_prompt
from diffusecli.evaluation.record_fit import record_figures
from diffusecli.evaluation.record_targets import RecordTarget
from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.sampled_tree import SampledTree
from diffusecli.models.token_view import view_tokens
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.conflicts import clashes, conversation
from diffusecli.prompts.matching import Matching, tally, target_finder
from diffusecli.prompts.parts import IndependentFields, parts_of
from diffusecli.prompts.prompt import IndependentField, Prompt
from diffusecli.prompts.prompt_files import inspect_prompt
from diffusecli.system.errors import InputError
from tests.tiny import byte_tokenizer

PEOPLE = Prompt(
    request="Someone.", targets=("{Ann, {age}, from Rome}", "{Bob, {age}, from Rome}", "{Bob, {age}, from Oslo}"), weights=(2, 1, 1),
    template="{{{name}, {age}, from {city}}}", independent={"age": IndependentField(values=("34", "35", "8"), weights=(1, 1, 2))}, alias="p.json",
)  # fmt: skip
AGES = {"34": 0.25, "35": 0.25, "8": 0.5}
JOINT = {("Ann", "Rome"): 0.5, ("Bob", "Rome"): 0.25, ("Bob", "Oslo"): 0.25}
LISTED = {f"{{{name}, {age}, from {city}}}": p * q for ((name, city), p), (age, q) in product(JOINT.items(), AGES.items())}


def test_a_field_is_drawn_given_those_before_it_and_an_independent_one_by_its_own_weights():
    parts = parts_of(PEOPLE)
    assert isinstance(parts, IndependentFields)
    assert parts.values == (("Ann", "Bob"), ("34", "35", "8"), ("Rome", "Oslo"))
    assert [parts.weights(drawn).tolist() for drawn in ((), (0,), (1,), (0, 2), (1, 0))] == [
        [0.5, 0.5], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5], [1, 0], [0.5, 0.5],
    ]  # fmt: skip


def test_drawn_records_have_the_frequencies_of_the_product():
    parts = parts_of(PEOPLE)
    drawn = Counter(
        parts.template.fill([own[index] for own, index in zip(parts.values, row, strict=True)])
        for row in parts.draw(40_000, np.random.default_rng(0)).tolist()
    )
    assert drawn.keys() == LISTED.keys()
    for text, p in LISTED.items():
        assert drawn[text] / 40_000 == pytest.approx(p, abs=4.5 * (p / 40_000) ** 0.5)


def test_the_mean_of_drawn_trees_is_the_tree_of_all_combinations():
    chat = Chat(byte_tokenizer())
    found = encode_prompt(PEOPLE, chat)
    whole = encode_prompt(
        Prompt(request="Someone.", targets=tuple(LISTED), weights=tuple(LISTED.values()), template=PEOPLE.template, alias="p.json"),
        chat,
    )
    assert isinstance(whole.trie, TokenTrie)
    assert found.longest == whole.longest
    masses = Counter()
    for seed in range(2000):
        part = found.sequences.sample(2, seed)
        assert isinstance(part, SampledTree)
        for node in np.flatnonzero(part.conditionals > 0).tolist():
            masses[tuple(part.tokens[part.ancestors(node)].tolist())] += part.masses[node] / 2000
    for node in range(len(whole.trie)):
        path = tuple(whole.trie.tokens[whole.trie.ancestors(node)].tolist())
        mass = float(whole.trie.masses[node])
        assert masses[path] == pytest.approx(mass, abs=4.5 * (mass / 2000) ** 0.5)


def test_an_answer_counts_for_its_target_if_its_independent_fields_are_known():
    found = tally(
        PEOPLE, {"{Ann, 34, from Rome}": 3, "{Ann, 8, from Rome}": 1, "{Ann, 9, from Rome}": 5, "{Ann, 34, from Oslo}": 7, "Ann": 1}
    )
    assert found.counts == (4, 0, 0)
    assert found.off_target == {"{Ann, 9, from Rome}": 5, "{Ann, 34, from Oslo}": 7, "Ann": 1}


def test_figures_of_fields_and_pairs_are_those_of_the_listed_combinations():
    """20 of each 16th: no field and no pair differs from the weights, by the product and by the list."""
    answers = Answers()
    for text, p in LISTED.items():
        answers.add(text, round(16 * p * 20))
    whole = Prompt(request="r", targets=tuple(LISTED), weights=tuple(LISTED.values()), template=PEOPLE.template)
    of_product, of_list = (record_figures(prompt, answers, 0) for prompt in (PEOPLE, whole))
    assert (of_product.fits, of_product.known) == (of_list.fits, of_list.known) == (1, 1)
    for one, other in zip(of_product.fields, of_list.fields, strict=True):
        assert (one.name, one.values, one.tvd) == (other.name, other.values, pytest.approx(other.tvd, abs=1e-12))
        assert one.tvd == pytest.approx(0, abs=1e-12)
    for one, other in zip(of_product.pairs, of_list.pairs, strict=True):
        assert (one.first, one.second, one.target) == (other.first, other.second, pytest.approx(other.target, abs=1e-9))
    target = RecordTarget.of(PEOPLE, PEOPLE.record)
    assert target.marginals == [{"Ann": 0.5, "Bob": 0.5}, AGES, {"Rome": 0.75, "Oslo": 0.25}]


def test_many_combinations_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusecli.prompts.record_columns._MOST_LISTED", 8)
    table = tmp_path / "people.csv"
    table.write_text("name,age,city\nAnn,34,Rome\nBob,35,Oslo\nBob,36,Rome\n")
    prompt = init_prompt(from_file=table, template="{name}, {age}, from {city}", independent=["age"])
    assert prompt.targets == ("{Ann, {age}, from Rome}", "{Bob, {age}, from Oslo}", "{Bob, {age}, from Rome}")
    assert dict(zip(prompt.independent["age"].values, prompt.independent["age"].probabilities, strict=True)) == pytest.approx(
        {"34": 1 / 3, "35": 1 / 3, "36": 1 / 3}
    )
    all_of_them = init_prompt(from_file=table, template="{name}, {age}", independent=["age", "name"])
    assert len(all_of_them.targets) == 6  # two names, three ages: few enough
    assert all_of_them.independent == {}
    (tmp_path / "by-table.json").write_text(json.dumps({
        "request": prompt.request,
        "targets": {"from": "people.csv", "template": "{name}, {age}, from {city}", "wrap": "{%s}", "independent": ["age"]},
    }))  # fmt: skip
    read, problems = inspect_prompt(tmp_path / "by-table.json")
    assert [p for p in problems if p.severity == "error"] == []
    assert read.digest == prompt.digest


def written(tmp_path, **changes):
    fields = json.loads(PEOPLE.to_json())
    path = tmp_path / "p.json"
    path.write_text(json.dumps({key: value for key, value in {**fields, **changes}.items() if value is not None}))
    found, problems = inspect_prompt(path)
    return found, [f"{p.message}. {p.remedy}" for p in problems if p.severity == "error"]


def test_the_file_of_a_prompt_with_independent_fields_reads_back(tmp_path):
    found, problems = written(tmp_path)
    assert problems == []
    assert found.digest == PEOPLE.digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": None}, "there is no template whose fields are independent. add template"),
        ({"independent": {"aeg": {"values": ["1"]}}}, "'aeg' is not a field of the template"),
        ({"independent": {"age": {"values": []}}}, "the field 'age' has no values. write at least one"),
        ({"independent": {"age": {"values": ["1", "1"]}}}, "duplicate value '1'. keep one and add up the weights"),
        ({"independent": {"age": {"values": [" 1"]}}}, "the value ' 1' is empty or starts or ends with white space"),
        ({"independent": {"age": {"values": ["1, from 2"]}}}, "the value '1, from 2' of 'age' and ', from ', the text after it, would be split"),
        ({"independent": {"age": {"values": ["1"], "weights": [1, 2]}}}, "2 weights for 1 value"),
        ({"independent": {"age": {"values": ["1"], "weights": [-1]}}}, "the weight -1 is not a probability"),
        ({"targets": ["{Ann, 34, from Rome}"], "weights": None}, "has no {age} in the place of the independent field. write {age} there"),
        ({"draws": {"n": 2}}, "independent cannot be combined with draws. remove one of them"),
        ({"response": "So: "}, "independent cannot be combined with response"),
        ({"eos": False}, "independent cannot be combined with eos: false"),
    ],
)  # fmt: skip
def test_independent_fields_that_cannot_be_are_one_sentence(tmp_path, changes, says):
    found, problems = written(tmp_path, **changes)
    assert found is None
    assert any(says in problem for problem in problems), problems


def test_tokens_that_span_two_fields_are_refused():
    merged = byte_tokenizer(merges=[(",", "Ġ"), (",Ġ", "3")])
    with pytest.raises(InputError, match="the tokens of a field depend on neighbouring fields"):
        encode_prompt(PEOPLE, Chat(merged))


LISTED_PROMPT = Prompt(request="r", targets=tuple(LISTED), weights=tuple(LISTED.values()), template=PEOPLE.template, alias="l.json")
ANSWERS = (
    "{Ann, 34, from Rome}", " {Ann, 34, from Rome}\n", "{ann, 34, FROM rome}", "Sure: {Ann, 34, from Rome}.", "{Ann,  34, from Rome}",
    "{Ann, 99, from Rome}", "{Ann, zz, from Rome}", "{Ann, -1, from Rome}", "Ann, 34, from Rome", "{Ann, 34, from Oslo}", "{Bob, 8, from Oslo}", "", "{}",
)  # fmt: skip


@pytest.mark.parametrize("rule", ["strip", "exact", "casefold", r"regex:\{(.*)\}", r"regex:(\{.*?\})", r"regex:^\W*(\w.*\w)\W*$"])
def test_a_rule_matches_the_answers_that_it_matches_if_all_combinations_are_listed(rule):
    of_fields, of_list = (target_finder(prompt, Matching(rule)) for prompt in (PEOPLE, LISTED_PROMPT))
    for text in ANSWERS:
        place, listed = of_fields(text), of_list(text)
        assert (place is None) == (listed is None), text
        if place is not None:
            name, _, city = PEOPLE.record.parse(PEOPLE.targets[place])
            assert (name, city) == LISTED_PROMPT.record.parse(LISTED_PROMPT.targets[listed])[::2]


def test_a_rule_that_drops_a_field_or_makes_targets_equal_is_refused():
    with pytest.raises(InputError, match="does not keep all fields of an answer"):
        target_finder(PEOPLE, Matching(r"regex:\w+"))
    twins = PEOPLE.model_copy(update={"targets": ("{Ann, {age}, from Rome}", "{ANN, {age}, from Rome}"), "weights": None})
    with pytest.raises(InputError, match="does not distinguish"):
        target_finder(twins, Matching("casefold"))


def test_a_column_name_may_contain_the_text_between_fields(tmp_path, monkeypatch):
    table = tmp_path / "people.csv"
    table.write_text("first name,age\nJohn,34\nAnn,34\nBob,52\n")
    options = {"from_file": table, "template": "{first name} {age}", "independent": ["first name"]}
    prompt = init_prompt(**options)
    assert dict(zip(prompt.targets, prompt.probabilities, strict=True))["{John 52}"] == pytest.approx(1 / 9)
    assert len(prompt.targets) == 6
    monkeypatch.setattr("diffusecli.prompts.record_columns._MOST_LISTED", 3)
    with pytest.raises(InputError, match="--independent first name: a column name contains the text between two fields"):
        init_prompt(**options)


def test_smoothing_and_cuts_are_refused_where_combinations_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusecli.prompts.record_columns._MOST_LISTED", 3)
    table = tmp_path / "people.csv"
    table.write_text("name,age\nJohn,34\nAnn,34\nBob,52\n")
    for option, value in (("alpha", 1.0), ("top", 2), ("min_count", 1.5)):
        with pytest.raises(InputError, match="cannot be combined with --independent"):
            init_prompt(from_file=table, template="{name} {age}", independent=["age"], **{option: value})


def test_the_tokens_of_all_fields_are_shown():
    many = PEOPLE.model_copy(update={"targets": tuple(f"{{Ann, {{age}}, from City {n}}}" for n in range(9)), "weights": None})
    (view,), problems = view_tokens([many], [], Chat(byte_tokenizer()))
    assert problems == []
    shown = dict(view.target_tokens())
    assert set(shown) == {"Ann", "34", "35", "8", *(f"City {n}" for n in range(9))}
    assert "".join(shown["Ann"]) == "{Ann,"


def test_equal_distributions_of_independent_fields_agree():
    again = PEOPLE.model_copy(
        update={
            "independent": {"age": IndependentField(values=("8", "35", "34"), weights=(0.5, 0.25, 0.25))},
            "alias": "again.json",
        }
    )
    other = PEOPLE.model_copy(update={"independent": {"age": IndependentField(values=("34", "35", "8"))}, "alias": "other.json"})
    asked = [conversation(PEOPLE)] * 2
    assert [clash.agree for clash in clashes([PEOPLE, again], asked)] == [True]
    assert [clash.agree for clash in clashes([PEOPLE, other], asked)] == [False]
