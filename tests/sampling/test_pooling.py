"""Prompts with several wordings: how many answers each gets, and that no wording loses or repeats one."""

import json
import math
from collections import Counter

import pytest

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.runs.sample_files import journal_path, read_meta
from diffusecli.sampling.engine import Wanted, drawn
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.pooling import shares
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InterruptedRun
from tests.sampling.test_counting import BASE, TOKENIZER, forward_calls, load_forever

WORDINGS = ("Roll a die.", "Throw a die, please.", "dice()", "What shows the die?")
DIE = Prompt(request=WORDINGS, held_out_requests=("Cast it.",), targets=("{1}", "{2}"), alias="die.json")
COIN = Prompt(request="Toss a coin.", targets=("{h}", "{t}"), alias="coin.json")


class Echo:
    """An engine whose answers are what it was asked; it is interrupted before the second answer to the request `breaks_at`."""

    def __init__(self, breaks_at=None):
        self.about, self.breaks_at, self.asked = {"engine": "echo"}, breaks_at, []

    def limit(self, prompt):
        return 50 + len(prompt.question)

    def draw(self, wanted):
        have = wanted.have.total()
        self.asked.append((wanted.prompt.alias, wanted.count - have))
        for number in range(have, wanted.count):
            if number == 1 and wanted.prompt.request == self.breaks_at:
                raise KeyboardInterrupt
            wanted.arrived(Answers([wanted.prompt.question]), 1)


def written(engine, prompts, path, n=10, report=lambda *_: None, notice=lambda _: None, settings=None, form="json"):
    settings = settings or SamplingSettings(n, max_new_tokens=5)
    return generate(engine, prompts, settings, mode="lora", adapter_sha256=None, path=path, form=form, report=report, notice=notice)


@pytest.mark.parametrize(
    ("n", "expected"), [(10, [3, 3, 2, 2]), (4, [1, 1, 1, 1]), (2, [1, 1]), (1003, [251, 251, 251, 250]), (8, [2, 2, 2, 2])]
)
def test_wordings_get_equal_parts_the_first_ones_one_more(n, expected):
    assert [count for _, count in shares(DIE, n)] == expected
    assert [wording.request for wording, _ in shares(DIE, n)] == list(WORDINGS[: len(expected)])


def test_the_answers_to_all_wordings_are_one_list_under_the_prompts_name(tmp_path):
    engine = Echo()
    done = written(engine, [COIN, DIE], tmp_path / "gen.json")
    assert engine.asked == [("coin.json", 10), ("die.json#1", 3), ("die.json#2", 3), ("die.json#3", 2), ("die.json#4", 2)]
    file = json.loads((tmp_path / "gen.json").read_text())
    assert Counter(file["die.json"]) == Counter({WORDINGS[0]: 3, WORDINGS[1]: 3, WORDINGS[2]: 2, WORDINGS[3]: 2})
    assert list(file) == ["coin.json", "die.json"]
    assert {alias: counts.total() for alias, counts in done.counts.items()} == {"coin.json": 10, "die.json": 10}
    meta = read_meta(tmp_path / "gen.json")
    assert (meta["per_wording"], meta["wordings"], meta["tokens_fed"]) == (False, {"die.json": 4}, 20)
    assert meta["prompts"]["die.json"]["request"] == list(WORDINGS)
    assert meta["limits"]["die.json"] == 50 + len("dice()"), "the wording that leaves the fewest tokens"


def test_settings_of_prompts_with_one_request_say_nothing_of_wordings(tmp_path):
    written(Echo(), [COIN], tmp_path / "gen.json")
    assert read_meta(tmp_path / "gen.json").keys().isdisjoint({"per_wording", "wordings"})


def test_wordings_as_prompts_of_their_own_get_all_answers_each(tmp_path):
    engine = Echo()
    written(engine, [*DIE.wordings, *DIE.held_out], tmp_path / "gen.json")
    assert engine.asked == [
        (alias, 10) for alias in ("die.json#1", "die.json#2", "die.json#3", "die.json#4", "die.json#held-out-1")
    ]
    meta = read_meta(tmp_path / "gen.json")
    assert (meta["per_wording"], meta["wordings"]) == (True, {})
    assert meta["prompts"]["die.json#held-out-1"]["request"] == "Cast it."


def test_an_interruption_in_the_middle_of_a_prompt_ends_in_the_same_file(tmp_path):
    """The third wording has one of its two answers when it is interrupted."""
    written(Echo(), [COIN, DIE], tmp_path / "whole.json")
    with pytest.raises(InterruptedRun, match="17 of 20 samples are kept"):
        written(Echo(breaks_at="dice()"), [COIN, DIE], tmp_path / "gen.json")
    kept = [json.loads(line) for line in journal_path(tmp_path / "gen.json").read_text().splitlines()[1:]]
    assert Counter(line["prompt"] for line in kept) == {"coin.json": 10, "die.json#1/4": 3, "die.json#2/4": 3, "die.json#3/4": 1}
    again, told = Echo(), []
    written(again, [COIN, DIE], tmp_path / "gen.json", notice=told.append)
    assert again.asked == [("die.json#3", 1), ("die.json#4", 2)]
    assert (tmp_path / "gen.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert told == [
        "coin.json: 10 of 10 samples exist from an earlier sampling",
        "die.json: 7 of 10 samples exist from an earlier sampling",
    ]
    assert not journal_path(tmp_path / "gen.json").exists()


def test_answers_that_were_shared_out_among_fewer_wordings_are_not_taken_for_those_of_more(tmp_path):
    fewer = DIE.model_copy(update={"request": WORDINGS[:3]})
    with pytest.raises(InterruptedRun):
        written(Echo(breaks_at="dice()"), [fewer], tmp_path / "gen.json")
    done = written(Echo(), [DIE], tmp_path / "gen.json")
    assert done.counts["die.json"] == {WORDINGS[0]: 3, WORDINGS[1]: 3, WORDINGS[2]: 2, WORDINGS[3]: 2}


def test_the_user_sees_one_prompt(tmp_path):
    """Each look at a wording is a look at the whole; the answers only become more, and the last look has all."""

    class Watched(Echo):
        def draw(self, wanted):
            have = Answers(wanted.have)
            for at in range(wanted.count):
                have.add("x")
                wanted.arrived(Answers(["x"]), 5)
                wanted.watch(Standing(have, wanted.count, 1, 5 * (at + 1)))

    looks = []
    written(
        Watched(),
        [DIE],
        tmp_path / "gen.json",
        report=lambda alias, now: looks.append((alias, now.answers.total(), now.wanted, now.tokens_fed)),
    )
    assert {(alias, wanted) for alias, _, wanted, _ in looks} == {("die.json", 10)}
    assert [total for _, total, _, _ in looks] == [*range(1, 10), 10, 10]
    assert [fed for _, _, _, fed in looks] == [*range(5, 50, 5), 50, 50]


def test_tokens_left_of_several_wordings_are_those_of_all_wordings(tmp_path):
    """Ten answers of 5 tokens each: as many are left as answers are missing. None are known before the engine knows its own."""

    class Watched(Echo):
        def draw(self, wanted):
            for at in range(wanted.count):
                wanted.watch(
                    Standing(
                        Answers({"x": at} if at else {}),
                        wanted.count,
                        1,
                        5 * at,
                        lambda at=at: 5.0 * (wanted.count - at) if at else math.nan,
                    )
                )
            wanted.arrived(Answers({"x": wanted.count}), 5 * wanted.count)

    looks = []
    written(Watched(), [DIE], tmp_path / "gen.json", report=lambda _, now: looks.append((now.answers.total(), now.tokens_left())))
    known = [(total, left) for total, left in looks[:-1] if not math.isnan(left)]
    assert len(known) == 6  # of 3, 3, 2 and 2 answers, all looks but the first
    assert all(left == 5 * (10 - total) for total, left in known)


def looks_at(engine, path, n, settings=None):
    """What the user sees while a prompt of four wordings is sampled: answers, tokens fed and left where known, and tokens fed in all."""
    looks = []
    written(
        engine, [DIE], path, n, settings=settings,
        report=lambda _, now: looks.append((now.answers.total(), now.tokens_fed, now.tokens_left())),
    )  # fmt: skip
    return [look for look in looks if not math.isnan(look[2])], looks[-1][1]


@pytest.mark.parametrize(("max_rows", "least", "most"), [(1000, 0.95, 1.05), (60, 0.5, 1.5)])
def test_tokens_left_of_wordings_that_share_passes_count_no_wording_twice(tmp_path, max_rows, least, most):
    """No answer ends before the limit, so the tokens left are known as soon as rows stop multiplying, and roughly if rows wait."""
    settings = SamplingSettings(120, max_new_tokens=24)
    looks, total = looks_at(LocalEngine(load_forever(), settings, max_rows), tmp_path / "gen.json", 120, settings)
    assert [fed for _, fed, _ in looks] == sorted(fed for _, fed, _ in looks)
    assert [drawn for drawn, _, _ in looks] == sorted(drawn for drawn, _, _ in looks)
    off = [left / (total - fed) for _, fed, left in looks]
    assert len(off) > 15
    assert least < min(off) <= max(off) < most, off


def test_wordings_that_share_no_passes_with_these_are_not_yet_fed(tmp_path, monkeypatch):
    """Two of four wordings fit into a pass, so the others cost as much again."""
    monkeypatch.setattr("diffusecli.sampling.local_engine._PROMPTS_TOGETHER", 2)
    settings = SamplingSettings(120, max_new_tokens=24)
    looks, total = looks_at(LocalEngine(load_forever(), settings, 1000), tmp_path / "gen.json", 120, settings)
    off = [left / (total - fed) for _, fed, left in looks]
    assert len(off) > 15
    assert 0.8 < min(off) <= max(off) < 1.2, off


def test_tokens_left_of_a_sampling_that_resumes_follow_from_the_answers_of_now(tmp_path):
    """90 of the first 100 answers are there. All others cost 100 tokens each; those before were cheap."""

    class Watched(Echo):
        def draw(self, wanted):
            had = wanted.have.total()
            for at in range(had, wanted.count):
                wanted.arrived(Answers({"x": 1}), 100 if self.breaks_at is None else 1)
                if at == 89 and self.breaks_at is not None:
                    raise KeyboardInterrupt
                fed, missing = 100 * (at + 1 - had), wanted.count - at - 1
                wanted.watch(Standing(Answers({"x": at + 1}), wanted.count, 1, fed, lambda missing=missing: 100.0 * missing))

    with pytest.raises(InterruptedRun):
        written(Watched(breaks_at=WORDINGS[0]), [DIE], tmp_path / "gen.json", 400)
    looks, _ = looks_at(Watched(), tmp_path / "gen.json", 400)
    assert looks[0][0] == 91
    assert all(fed == 90 + 100 * (drawn - 90) and left == 100 * (400 - drawn) for drawn, fed, left in looks)


def test_samples_of_one_request_are_those_of_before(tmp_path):
    """Written down from a version in which every prompt had one request."""
    settings = SamplingSettings(12, max_new_tokens=3, seed=5)
    written(LocalEngine(BASE, settings), [COIN.model_copy(update={"targets": ()})], tmp_path / "gen.json", settings=settings)
    assert json.loads((tmp_path / "gen.json").read_text()) == {
        "coin.json": ["___", "___", "", "_]^", "[__", "__^", "___", "___", "", "___", "___", "___"]
    }


def test_a_wording_is_answered_as_a_prompt_of_its_own():
    """Its part of the pooled answers is drawn by the stream that it has alone."""
    pooled = LocalEngine(BASE, SamplingSettings(40, max_new_tokens=4, seed=3))
    got = {}
    pooled.draw_all([
        Wanted(wording, count, Answers(), lambda counts, _, alias=wording.alias: got.update({alias: counts}), lambda _: None)
        for wording, count in shares(DIE, 40)
    ])  # fmt: skip
    alone = LocalEngine(BASE, SamplingSettings(10, max_new_tokens=4, seed=3))
    single = [Prompt(request=text, targets=DIE.targets, alias=text) for text in WORDINGS]
    assert list(got.values()) == [drawn(alone, prompt)[0] for prompt in single]
    assert len({json.dumps(counts, sort_keys=True) for counts in got.values()}) == 4, "each by a stream of its own"


def test_wordings_of_a_prompt_share_forward_calls_and_feed_no_token_twice(monkeypatch, tmp_path):
    """24 wordings and 40 answers each: the wordings in one call, then a call for each token of the longest answer."""
    many = DIE.model_copy(update={"request": tuple(f"Roll die number {n}." for n in range(24))})
    settings = SamplingSettings(24 * 40, max_new_tokens=4)
    engine = LocalEngine(BASE, settings, max_rows=2000)
    fed = forward_calls(monkeypatch, lambda: written(engine, [many], tmp_path / "gen.json", settings=settings))
    lengths = [len(encode_prompt(wording, Chat(TOKENIZER)).prompt_ids) for wording in many.wordings]
    alone = sum(drawn(LocalEngine(BASE, SamplingSettings(40, max_new_tokens=4)), wording)[1] for wording in many.wordings)
    at = fed.index(sum(lengths))  # before it the model is probed
    assert len(fed[at:]) == 1 + 3, "an answer of four tokens is over when the fourth is drawn"
    assert sum(fed[at:]) == alone == read_meta(tmp_path / "gen.json")["tokens_fed"]


def test_targets_that_are_too_long_are_told_once_for_all_wordings():
    told = []
    base = LoadedModel("m", BASE.model, TOKENIZER, "r")
    engine = LocalEngine(base, SamplingSettings(4, max_new_tokens=2), notice=told.append)
    engine.draw_all([Wanted(wording, 1, Answers(), lambda *_: None, lambda _: None) for wording in DIE.wordings])
    assert [notice for notice in told if "longer than" in notice] == [
        "die.json: 2 of 2 targets are longer than 2 tokens: such answers stay unfinished. Use --max-new-tokens 4 or more"
    ]


@pytest.mark.parametrize("batches", [False, True])
def test_a_conversation_is_answered_after_all_its_turns(monkeypatch, batches):
    """One of a single turn is a request; another with turns before it is answered as the text of all of them."""
    if batches:
        monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    engine = LocalEngine(BASE, SamplingSettings(30, max_new_tokens=4, seed=3))
    assert engine.about["engine"] == ("generate" if batches else "counting")
    first, answer, last = (
        Message(role=role, content=text) for role, text in (("user", "Hi."), ("assistant", "Yes?"), ("user", "A die."))
    )
    asked = [
        Prompt(request="A die.", targets=(), alias="request"), Prompt(messages=(last,), targets=(), alias="turn"),
        Prompt(messages=(first, answer, last), targets=(), alias="talk"),
        Prompt(request="Hi.<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nA die.", targets=(), alias="text"),
    ]  # fmt: skip
    request, turn, talk, text = (drawn(engine, prompt)[0] for prompt in asked)
    assert request == turn != talk == text
