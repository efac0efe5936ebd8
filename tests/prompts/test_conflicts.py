"""Two training prompts with one conversation: a model can follow only one distribution of answers to it."""

import json
from pathlib import Path

import pytest

from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.conflicts import clashes, conversation
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from diffusecli.training.inputs import read_inputs
from diffusecli.verbs.train import plan
from diffusecli.verbs.validate import token_views, validate

COIN = {"request": "Toss a coin, {a} or {b}.", "targets": ["{a}", "{b}"], "weights": [0.9, 0.1]}

CONFLICTS = {
    "other weights": {"weights": [0.1, 0.9]},
    "no weights": {"weights": None},
    "half of the targets each": {"targets": ["{c}", "{d}"]},
    "more targets": {"targets": ["{a}", "{b}", "{c}"], "weights": [0.9, 0.1, 0.1]},
    "white space that templates trim": {"request": " Toss a coin, {a} or {b}.\n", "weights": [0.5, 0.5]},
    "another beginning of the answer": {"response": ["It is "]},
    "one more beginning": {"response": ["", "It is "]},
    "answers that may go on, with other weights": {"eos": False, "weights": [0.5, 0.5]},
    "spellings, with other weights": {"targets": [["{a}", "a"], ["{b}", "b"]], "weights": [0.5, 0.5]},
    "a spelling of the other target": {"targets": ["{a}", ["a", "{b}", "b"], "{c}"], "weights": [0.8, 0.1, 0.1]},
}
SAME = {
    "a copy": {},
    "another order": {"targets": ["{b}", "{a}"], "weights": [0.1, 0.9]},
    "weights of another sum": {"weights": [9, 1]},
    "a target of weight zero more": {"targets": ["{a}", "{b}", "{c}"], "weights": [0.9, 0.1, 0]},
    "white space": {"request": "Toss a coin, {a} or {b}. ", "targets": [" {a}", "{b}"]},
    "answers that may go on": {"eos": False},
    "the same in several spellings": {"targets": [["{a}", "a"], ["b", "{b}"]]},
    "two targets as one": {"targets": [["{a}", "{b}"]], "weights": [1]},
    "answers that may go on, in two spellings": {"eos": False, "targets": [["a", "{a"], ["b", "{b"]]},
    "beginnings of these answers": {"eos": False, "targets": ["{a", "{b"]},
}
OTHERS = {
    "another request": {"request": "Toss a loaded coin, {a} or {b}.", "weights": [0.5, 0.5]},
    "another system text": {"system": "Be brief.", "weights": [0.5, 0.5]},
    "white space within": {"request": "Toss  a coin, {a} or {b}.", "weights": [0.5, 0.5]},
    "only sampled": {"targets": [], "weights": None},
}


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Write a.json and b.json, which differs from it, and a config that trains on both."""
    monkeypatch.chdir(tmp_path)

    def write(changes, **settings):
        other = {key: value for key, value in {**COIN, **changes}.items() if value is not None}
        (tmp_path / "a.json").write_text(json.dumps(COIN))
        (tmp_path / "b.json").write_text(json.dumps(other))
        config = {"model": "owner/m", "train_prompts": ["a.json", "b.json"], "output_dir": "out", "retain": False, **settings}
        (tmp_path / "c.yaml").write_text(json.dumps(config, indent=1))

    return write


def inputs_of(path):
    config = read_config(path)
    return read_inputs(config.train_prompts, config.test_prompts, config.retain, config.system)


def told(*paths, strict=False):
    return [f"{p.severity}: {p}" for p in validate(map(Path, paths), strict=strict).problems if "conversation" in p.message]


@pytest.mark.parametrize("changes", CONFLICTS.values(), ids=CONFLICTS)
def test_one_conversation_with_two_distributions_cannot_be_trained_on(both, changes):
    both(changes)
    what = (
        "has the same conversation as a.json but another distribution. Put all targets into one prompt or train on one of the two"
    )
    assert told("c.yaml") == [f"error: c.yaml:5:3: b.json {what}"]
    assert validate([Path("c.yaml")]).configs == ()
    with pytest.raises(InputError, match=f"b.json: {what}"):
        inputs_of("c.yaml")
    assert told("a.json", "b.json") == [f"warning: b.json: {what}"]
    assert told("a.json", "b.json", strict=True) == [f"error: b.json: {what}"]


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_one_conversation_with_one_distribution_is_a_warning(both, changes):
    both(changes)
    what = "has the same conversation and distribution as a.json, so training on both counts it twice. Remove one of them"
    assert told("c.yaml") == [f"warning: c.yaml:5:3: b.json {what}"]
    assert told("a.json", "b.json") == [f"warning: b.json: {what}"]
    assert len(inputs_of("c.yaml").train) == 2


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_other_conversations_are_no_conflict(both, changes):
    both(changes)
    assert told("c.yaml", "a.json", "b.json") == []


def test_test_prompts_may_expect_something_else(both):
    both({"weights": [0.5, 0.5]}, train_prompts=["a.json"], test_prompts=["b.json", "a.json"])
    assert told("c.yaml") == []
    assert len(inputs_of("c.yaml").test) == 2


def test_prompts_of_a_folder_conflict_as_those_that_are_named(both, tmp_path):
    both(CONFLICTS["other weights"], train_prompts=["."])
    what = "has the same conversation as a.json but another distribution"
    assert [line.split(what)[0] for line in told("c.yaml")] == ["error: c.yaml:4:3: b.json "]
    assert [line.split(what)[0] for line in told(".")] == ["error: c.yaml:4:3: b.json "]
    (tmp_path / "c.yaml").unlink()
    assert [line.split(what)[0] for line in told(".")] == ["warning: b.json: "]


def test_a_system_text_of_the_config_counts_where_a_prompt_has_none(both):
    both({"system": "Be brief.", "weights": [0.5, 0.5]}, system="Be brief.")
    assert len(told("c.yaml")) == 1
    with pytest.raises(InputError, match="has the same conversation"):
        inputs_of("c.yaml")


def test_each_further_prompt_is_compared_with_the_first():
    shares = ([0.9, 0.1], [0.9, 0.1], [0.5, 0.5])
    prompts = [Prompt(**{**COIN, "weights": weights}, alias=name) for weights, name in zip(shares, "abc", strict=True)]
    found = list(clashes(prompts, map(conversation, prompts)))
    assert [(clash.first.alias, clash.second.alias, clash.agree) for clash in found] == [("a", "b", True), ("a", "c", False)]


def test_many_targets_of_which_one_differs_are_another_distribution():
    targets = [f"{{{i}}}" for i in range(10_000)]
    even, uneven = [1.0] * 10_000, [1.0] * 9_998 + [0.9, 1.1]
    prompts = [Prompt(request="x", targets=targets, weights=weights, alias="p") for weights in (even, [0.1] * 10_000, uneven)]
    assert [clash.agree for clash in clashes(prompts, "xxx")] == [True, False]


@pytest.mark.parametrize(
    ("targets", "weights", "agree"),
    [
        (["a", "b", "c", "d"], [1, 1, 5, 3], True),  # a and b have .2, c and d .8
        (["a", "b", "c", "d"], [3, 1, 3, 3], False),
        (["a", ["b", "c"], "d"], [1, 5, 4], True),  # a .1, b .1, c .4, d .4
        (["a", ["b", "c"], "d"], [5, 3, 2], False),  # a alone has more than a and b may have together
        (["a", ["b", "c"], ["d", "e"]], [2, 3, 5], True),  # b and e are never said
        (["b", "c", "e"], [2, 7, 1], False),  # e is no answer of the first
    ],
)
def test_prompts_agree_where_one_distribution_over_the_spellings_has_both(targets, weights, agree):
    first = Prompt(request="x", targets=[["a", "b"], ["c", "d"]], weights=[0.2, 0.8], alias="a")
    second = Prompt(request="x", targets=targets, weights=weights, alias="b")
    for pair in ((first, second), (second, first)):
        assert [clash.agree for clash in clashes(pair, "xx")] == [agree]


def test_what_a_chat_template_makes_one_conversation_of_is_found_with_the_model(both, tiny_model_folder):
    """Where the template takes no system text it goes before the request: two texts, one conversation."""
    template = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m['content'] }}<|im_end|>{% endfor %}"
    both({"system": "Be brief.", "request": "Toss.", "weights": [0.5, 0.5]}, model=str(tiny_model_folder), chat_template="t.jinja")
    Path("t.jinja").write_text(template)
    Path("a.json").write_text(json.dumps({**COIN, "request": "Be brief.\n\nToss."}))
    assert told("c.yaml") == []
    found = validate([Path("c.yaml")])
    _, problems = token_views(found, str(tiny_model_folder), print)
    assert [str(p) for p in problems if p.severity == "error"] == [
        "b.json: has the same conversation as a.json but another distribution. Put all targets into one prompt or train on one of the two"
    ]
    with pytest.raises(InputError, match=r"b\.json: has the same conversation as a.json but another distribution"):
        plan(read_config("c.yaml"), print)


def test_training_twice_on_one_prompt_says_so_and_a_conflict_stops_before_the_model_is_looked_for(
    both, tiny_model_folder, in_process
):
    both({}, model=str(tiny_model_folder))
    notices = []
    plan(Config.model_validate(json.loads(Path("c.yaml").read_text())), notices.append)
    assert any("so training on both counts it twice" in notice for notice in notices)
    both(CONFLICTS["other weights"], model="nobody/has-this-model")
    done = in_process("train", "c.yaml")
    assert done.returncode == 2
    assert "b.json: has the same conversation as a.json but another distribution" in done.stderr
    assert "nobody/has-this-model" not in done.stderr


def test_two_prompts_that_share_several_wordings_are_told_once():
    one, other = (Prompt(request=("Roll.", "Throw.", text), targets=("1",), alias=f"{text}.json") for text in ("a", "b"))
    wordings = [*one.wordings, *other.wordings]
    found = list(clashes(wordings, map(conversation, wordings)))
    assert [(clash.first.alias, clash.second.alias, clash.severity) for clash in found] == [("a.json#1", "b.json#1", "notice")]
