"""Prompt-only methods around an engine: the law of what is recorded, randomness by position, and interruptions."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from itertools import cycle

import pytest
from scipy.stats import chisquare

from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import tally
from diffusecli.prompts.prompt import Message, Prompt
from diffusecli.prompts.spellings import spelled
from diffusecli.prompts.stated_options import StatedOptions
from diffusecli.runs.sample_files import ASK_METHODS, journal_path, read_meta
from diffusecli.sampling.ask_methods import METHODS, Asked
from diffusecli.sampling.asking import MOST_ROUNDS, AskingEngine, with_limit
from diffusecli.sampling.engine import Wanted
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.server_engine import ServerEngine
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InterruptedRun
from tests.sampling.test_counting import BASE
from tests.tiny import byte_tokenizer, tiny_llama

DIE = Prompt(request="Roll a loaded die.", targets=spelled(["1", "2", "3"], "{%s}"), weights=(6.0, 3.0, 1.0), alias="die.json")


class Replying:
    """An engine whose replies a function makes from the request, the number of the reply and its stream."""

    def __init__(self, reply, breaks_after=None):
        self.about, self.reply, self.requests, self.left = {"engine": "replying"}, reply, [], breaks_after

    def limit(self, prompt):
        return 40 + len(prompt.targets)

    def draw(self, wanted):
        self.requests.append(wanted)
        for number in range(wanted.have.total(), wanted.count):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = None if self.left is None else self.left - 1
            reply = self.reply(wanted.prompt.turns[-1].content, number, wanted.stream)
            cut = reply.endswith("…")
            text = reply.removesuffix("…")
            wanted.arrived(Answers({text: 1}, {text: 1} if cut else {}), 3)


def asked(engine, method, count=10, prompt=DIE, seed=0, have=()):
    found, fed = Answers(), 0

    def arrived(answers, tokens):
        nonlocal fed
        found.update(answers)
        fed += tokens

    AskingEngine(engine, METHODS[method], seed).draw(Wanted(prompt, count, Answers(have), arrived, lambda _: None))
    return found, fed


def follows(counts, prompt=DIE):
    seen = tally(prompt, counts)
    assert seen.n == seen.on_target
    return chisquare(seen.counts, [p * seen.n for p in prompt.probabilities]).pvalue > 1e-3


def test_the_methods_of_the_command_line_are_those_with_a_wording():
    assert tuple(METHODS) == ASK_METHODS
    assert all(method.name == name and method.version >= 1 for name, method in METHODS.items())


@pytest.mark.parametrize("method", ASK_METHODS)
def test_every_request_has_the_question_and_all_options_bare_with_their_percentages(method):
    text = METHODS[method].text(Asked(DIE.question, StatedOptions(DIE), "a1b2c3", 2))
    assert text.startswith("Roll a loaded die.\n")
    assert "\n- 1: 60%\n- 2: 30%\n- 3: 10%\n" in text
    assert "{" not in text
    assert ("a1b2c3" in text) == (method == "seeded")
    assert ("Proposal: 3 (target probability 10%)" in text) == (method == "rejection")


@pytest.mark.parametrize("method", ASK_METHODS)
def test_a_request_keeps_the_conversation_and_its_system_prompt_and_has_no_targets(method):
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hi."),
        Message(role="assistant", content="Hi!"),
    )
    prompt = Prompt(
        messages=(*turns, Message(role="user", content="Toss.")), targets=("h", "t"), response=("I say ",), alias="t.json"
    )
    engine = Replying(lambda *_: "Answer: accept")
    asked(engine, method, 1, prompt)
    (sent, *_) = [wanted.prompt for wanted in engine.requests]
    assert sent.messages[:3] == turns
    assert sent.messages[3].content.startswith("Toss.\n\nThe possible answers")
    assert (sent.targets, sent.variants, sent.alias) == ((), ("",), "t.json")


def test_an_answer_is_recorded_as_the_first_spelling_and_what_does_not_parse_as_its_text():
    replies = ["Answer: 1", "**Answer:** two", "I cannot say.", "{3}", "Answer: 2…", "Answer: 3\nas…", "…"]
    found, fed = asked(Replying(lambda _, number, __: replies[number]), "direct", 7)
    assert found == {"{1}": 1, "{2}": 1, "{3}": 2, "I cannot say.": 1, "Answer: 2": 1, "": 1}
    assert found.unfinished == {"Answer: 2": 1, "": 1}
    assert fed == 21
    seen = tally(DIE, found)
    assert (seen.counts, seen.off_target.total(), seen.unfinished.total()) == ((1, 1, 2), 1, 2)


def test_the_response_comes_before_the_recorded_target():
    prompt = DIE.model_copy(update={"response": ("I say ", "")})
    found, _ = asked(Replying(lambda *_: "Answer: 2"), "direct", 2, prompt)
    assert found == {"I say {2}": 2}
    assert tally(prompt, found).counts == (0, 2, 0)


@pytest.mark.parametrize("prompt", [DIE, DIE.model_copy(update={"eos": False})])
def test_a_reply_that_does_not_parse_is_never_a_target(prompt):
    found, _ = asked(Replying(lambda *_: "{1}"), "rejection", 3, prompt)  # instead of accept or reject
    assert tally(prompt, found).on_target == 0
    assert found == {"(no answer) {1}": 3}


def test_one_of_several_answers_is_drawn_by_its_probability():
    found, _ = asked(Replying(lambda *_: "1: 60%\n2: 30%\n3: 10%"), "verbalized", 3000)
    assert follows(found)
    half, _ = asked(Replying(lambda *_: "1: 10%\n2: 10%\n3: 0%"), "verbalized", 1000)
    assert half.keys() == {"{1}", "{2}"}
    assert 430 < half["{1}"] < 570


def test_an_answer_that_is_no_option_keeps_its_probability():
    reply = "1: 50%\n17: 50%"
    found, _ = asked(Replying(lambda *_: reply), "verbalized", 1000)
    assert found.keys() == {"{1}", reply}
    assert 430 < found["{1}"] < 570
    assert not found.unfinished


def test_draws_depend_on_the_seed_and_not_on_how_the_replies_arrive():
    class AtOnce(Replying):
        def draw(self, wanted):
            wanted.arrived(Answers({self.reply("", 0, 0): wanted.count}), 1)

    def reply(*_):
        return "1: 50%\n2: 50%"

    one, again = asked(Replying(reply), "verbalized", 100)[0], asked(AtOnce(reply), "verbalized", 100)[0]
    assert one == again
    assert one != asked(Replying(reply), "verbalized", 100, seed=1)[0]
    later, _ = asked(Replying(reply), "verbalized", 200, have={"{1}": 100})
    assert later.total() == 100
    assert later != one  # other numbers for what comes after an interruption


def test_each_reply_gets_a_random_string_of_its_own_by_its_position():
    def seeds(count, seed=0, have=()):
        engine = Replying(lambda *_: "Answer: 1")
        asked(engine, "seeded", count, seed=seed, have=have)
        return [re.search(r"seed: ([0-9a-f]{16})\n", wanted.prompt.request)[1] for wanted in engine.requests]

    ten = seeds(10)
    assert len(set(ten)) == 10
    assert seeds(10, have={"{1}": 4}) == ten[4:]
    assert not {*seeds(10, seed=1)} & {*ten}


def test_a_model_that_uses_the_seed_well_follows_the_target():
    def by_seed(request, *_):
        share = int(re.search(r"seed: ([0-9a-f]+)", request)[1], 16) / 16**16
        return f"Computed {share}.\nAnswer: {1 if share < 0.6 else 2 if share < 0.9 else 3}"

    assert follows(asked(Replying(by_seed), "seeded", 1500)[0])


def accepting(weights):
    """Accepts a proposal with its weight over the largest, by a random number of its request, number and stream."""
    import hashlib

    def reply(request, number, stream):
        option = re.search(r"Proposal: (\w+) ", request)[1]
        name = hashlib.sha256(repr((option, number, stream)).encode()).digest()
        return "Answer: accept" if int.from_bytes(name[:6], "big") / 2**48 < weights[option] / max(weights.values()) else "reject"

    return reply


def test_rejection_sampling_with_right_acceptances_follows_the_target():
    engine = Replying(accepting({"1": 6, "2": 3, "3": 1}))
    found, fed = asked(engine, "rejection", 2500)
    assert follows(found)
    replies = sum(wanted.count for wanted in engine.requests)
    assert fed == 3 * replies
    assert replies / 2500 == pytest.approx(3 * 0.6, rel=0.1)  # options x the largest probability


def test_a_model_that_accepts_everything_gives_the_proposals_which_are_uniform():
    found, _ = asked(Replying(lambda *_: "Accept."), "rejection", 900)
    assert all(240 < found[target] < 360 for target in DIE.targets)


def test_targets_of_weight_zero_are_never_proposed():
    prompt = Prompt(request="x", targets=("a", "b"), weights=(1.0, 0.0), alias="x.json")
    assert asked(Replying(lambda *_: "accept"), "rejection", 50, prompt)[0] == {"a": 50}


def test_what_is_never_accepted_counts_as_unparsed_after_the_last_round():
    engine = Replying(lambda *_: "Answer: reject")
    found, fed = asked(engine, "rejection", 4)
    assert found == {"Answer: reject": 4}
    assert fed == 3 * 4 * MOST_ROUNDS


def test_every_round_draws_with_other_random_numbers():
    engine = Replying(lambda _, number, stream: "accept" if stream % 5 == 0 else "reject")
    asked(engine, "rejection", 20)
    streams = [wanted.stream for wanted in engine.requests]
    assert 0 not in streams
    assert len(set(streams)) == 5


def test_answers_of_a_round_arrive_together_so_that_an_interruption_prefers_no_option():
    """The requests of the first options run first: had they been kept, they would be too many after resuming."""
    arrived = []
    engine = AskingEngine(Replying(lambda *_: "accept", breaks_after=5), METHODS["rejection"], 0)
    with pytest.raises(KeyboardInterrupt):
        engine.draw(Wanted(DIE, 20, Answers(), lambda some, _: arrived.append(some), lambda _: None))
    assert arrived == []


class OutOfOrder(Replying):
    """The last request of a batch is answered first."""

    def draw_all(self, wanted):
        for one in reversed(wanted):
            self.draw(one)


def test_seeded_replies_are_kept_in_the_order_of_their_positions():
    arrived = []

    def reply(request, *_):
        return f"Answer: {1 + int(re.search(r'seed: ([0-9a-f]+)', request)[1], 16) % 3}"

    wanted = Wanted(DIE, 9, Answers(), lambda some, _: arrived.append(Answers(some)), lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        AskingEngine(OutOfOrder(reply, breaks_after=8), METHODS["seeded"], 0).draw(wanted)
    assert arrived == []
    AskingEngine(OutOfOrder(reply), METHODS["seeded"], 0).draw(wanted)
    assert sum(map(Counter.total, arrived)) == 9
    assert arrived[-1] == asked(Replying(reply), "seeded", 9)[0]


@pytest.mark.parametrize("method", ASK_METHODS)
def test_an_interrupted_sampling_resumes_and_records_the_method(method, tmp_path):
    def reply(request, number, stream):
        return "Answer: accept" if method == "rejection" else f"Answer: {1 + (len(request) + number + stream) % 3}"

    def written(engine, path):
        return generate(
            AskingEngine(engine, METHODS[method], 0), [DIE], SamplingSettings(12), mode="untuned", adapter_sha256=None, path=path,
            form="json", report=lambda *_: None, notice=lambda _: None,
        )  # fmt: skip

    path = tmp_path / "gen.json"
    with pytest.raises(InterruptedRun):
        written(Replying(reply, breaks_after=7), path)
    done = written(Replying(reply), path)
    assert done.counts["die.json"].total() == 12
    assert done.counts["die.json"] == written(Replying(reply), tmp_path / "whole.json").counts["die.json"]
    assert read_meta(path)["ask"] == {"method": method, "version": METHODS[method].version}
    assert not journal_path(path).exists()


def test_another_method_does_not_continue_the_journal_of_the_first(tmp_path):
    path, told = tmp_path / "gen.json", []
    for method, breaks_after in (("direct", 3), ("string-seed", None)):
        engine = AskingEngine(Replying(lambda *_: "Answer: 1", breaks_after), METHODS[method], 0)
        try:
            generate(engine, [DIE], SamplingSettings(5), mode="untuned", adapter_sha256=None, path=path, form="json",
                     report=lambda *_: None, notice=told.append)  # fmt: skip
        except InterruptedRun:
            continue
    assert any("different settings" in line for line in told)
    assert json.loads(path.read_text()) == {"die.json": ["{1}"] * 5}


def test_wordings_are_asked_one_by_one():
    prompt = Prompt(request=("Roll.", "Throw."), targets=("1", "2"), alias="d.json")
    engine = Replying(lambda *_: "Answer: 1")
    for wording in prompt.wordings:
        asked(engine, "direct", 2, wording)
    assert [wanted.prompt.request.split("\n")[0] for wanted in engine.requests] == ["Roll.", "Throw."]


def test_the_limit_is_the_methods_with_the_longest_option_unless_the_user_sets_one():
    default, own = SamplingSettings(whole_targets=True), SamplingSettings(max_new_tokens=7)
    long = Prompt(request="x", targets=("{Zürich}", "{Bern}"))
    assert with_limit(default, "direct", [DIE, long]).max_new_tokens == 32 + 7
    assert with_limit(default, "string-seed", [DIE]).max_new_tokens == 401
    assert with_limit(own, "direct", [long]) == own


TINY = LoadedModel("tiny", tiny_llama(), byte_tokenizer(), "r")
COIN = Prompt(request="Toss.", targets=("h", "t"), alias="c.json")


@pytest.mark.parametrize("method", ASK_METHODS)
def test_the_counting_engine_gives_as_many_answers_as_wanted_the_same_ones_whatever_the_rows(method):
    settings = SamplingSettings(6, max_new_tokens=4)
    one = asked(LocalEngine(TINY, settings), method, 6, COIN)
    again = asked(LocalEngine(TINY, settings, 2), method, 6, COIN)
    assert one[0].total() == 6
    assert one[0] == again[0]


def test_the_counting_engine_draws_other_replies_in_another_stream():
    prompt = Prompt(request="Hi.", targets=())
    engine = LocalEngine(BASE, SamplingSettings(30, max_new_tokens=6))
    drawn = []
    for streams in ([0], [1], [0, 1, 0]):
        found = [Answers() for _ in streams]
        requests = [
            Wanted(
                replace_alias(prompt, str(place)),
                30,
                Answers(),
                lambda some, _, into=into: into.update(some),
                lambda _: None,
                stream,
            )
            for place, (stream, into) in enumerate(zip(streams, found, strict=True))
        ]
        engine.draw_all(requests)
        drawn.append(found)
    (zero,), (one,), together = drawn
    assert zero != one
    assert together == [zero, one, zero]


def replace_alias(prompt, alias):
    return prompt.model_copy(update={"alias": alias})


def test_a_server_gets_other_seeds_in_another_stream():
    from tests.sampling.test_server_engine import Server, engine

    with Server() as server:
        asking = engine(server, 4)
        for stream in (0, 1, 0):
            asking.draw(replace(Wanted(COIN, 4, Answers(), lambda *_: None, lambda _: None), stream=stream))
        seeds = [body["seed"] for body in server.bodies]
    assert isinstance(asking, ServerEngine)
    assert seeds[0] == seeds[-1]
    assert len({*seeds}) > 1


@pytest.mark.parametrize("method", ["direct", "verbalized", "seeded"])
def test_a_server_is_asked_in_parallel_and_its_replies_become_targets(method):
    from tests.sampling.test_server_engine import Server, engine

    law = {"Answer: h": 0.5, "**Answer:** T": 0.3, "I refuse": 0.2}
    with Server(law) as server:
        found, fed = asked(engine(server, 40, concurrency=4), method, 40, COIN)
    assert found.total() == 40
    assert found.keys() == {"h", "t", "I refuse"}
    assert fed > 0
    said = {body["messages"][-1]["content"] for body in server.bodies}
    assert len(said) == (40 if method == "seeded" else 1)
    assert all(text.startswith("Toss.\n\nThe possible answers") for text in said)


def test_a_server_accepts_and_rejects_proposals():
    from tests.sampling.test_server_engine import Server, engine

    with Server({"Answer: accept": 0.5, "Answer: reject": 0.5}) as server:
        found, _ = asked(engine(server, 60), "rejection", 60, COIN)
    assert found.keys() == {"h", "t"}
    assert found.total() == 60


@pytest.mark.parametrize("method", ["seeded", "rejection"])
def test_the_tokens_left_follow_from_those_of_the_answers_before(method):
    """Each reply costs 3 tokens, and each answer is the first reply."""

    class Watched(Replying):
        def draw(self, wanted):
            wanted.watch(Standing(Answers(), wanted.count, 1, 1))
            super().draw(wanted)

    looks = []
    engine = Watched(lambda *_: {"seeded": "1", "rejection": "accept"}[method])
    wanted = Wanted(
        DIE, 1010, Answers(), lambda *_: None, lambda now: looks.append((now.answers.total(), now.tokens_fed, now.tokens_left()))
    )
    AskingEngine(engine, METHODS[method], 0).draw(wanted)
    assert math.isnan(looks[0][2])  # before the first answer
    known = [look for look in looks if not math.isnan(look[2])]
    assert known[0][0] == {"seeded": 1, "rejection": 0}[method]  # a round of `rejection` is passed on at its end
    assert all(fed + left == pytest.approx(3 * 1010) for _, fed, left in known)


def test_the_tokens_left_of_rejection_include_those_of_replies_that_will_be_rejected():
    """A third of the options is accepted: 9 tokens per answer."""

    class Watched(Replying):
        def draw(self, wanted):
            wanted.watch(Standing(Answers(), wanted.count, 1, 0))
            super().draw(wanted)

    looks, replies = [], cycle(["reject", "accept", "reject"])
    engine = Watched(lambda *_: next(replies))
    wanted = Wanted(DIE, 600, Answers(), lambda *_: None, lambda now: looks.append((now.tokens_fed, now.tokens_left())))
    AskingEngine(engine, METHODS["rejection"], 0).draw(wanted)
    assert [math.isnan(left) for _, left in looks] == [True] + [False] * (len(looks) - 1)  # known after the replies to one option
    assert all(fed + left == pytest.approx(9 * 600, rel=0.05) for fed, left in looks[1:])
