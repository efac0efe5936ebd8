"""Which wordings of which prompts a step takes, and how much each counts."""

from collections import Counter

import numpy as np
import pytest

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_like, encode_prompt
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.config import AlgConfig, Vary
from diffusecli.prompts.contexts import Contexts
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from diffusecli.training.loss import row_length
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.questions import Exact, Figures, Question, sampled
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.visits import Visits
from tests.tiny import byte_tokenizer, tiny_llama
from tests.training.test_loss import assert_same_gradient, gradient

CHAT = Chat(byte_tokenizer())


def question(requests, name="p.json", held_out=()):
    prompt = Prompt(request=requests, held_out_requests=held_out, targets=("{a}", "{bc}"), weights=(1, 3), alias=name)
    return Question.of(prompt, CHAT)


def visits(questions, seed=0, **settings):
    return Visits(questions, AlgConfig(**settings), seed, CHAT)


def asked(plan, steps):
    return [[visit.encoded.alias for visit in plan.step(number)[0]] for number in range(steps)]


def test_a_prompt_of_one_wording_is_taken_once_an_iteration_as_it_is():
    questions = [question("Roll.", "a.json"), question("Toss.", "b.json")]
    plan = visits(questions)
    assert plan.per_iteration == 2
    assert [sorted(name for step in asked(plan, 4)[at : at + 2] for name in step) for at in (0, 2)] == [["a.json", "b.json"]] * 2
    assert all(visit.encoded.trie is visit.question.wordings[0].trie for number in range(4) for visit in plan.step(number)[0])


def test_every_wording_comes_once_before_any_comes_again():
    plan = visits([question([f"Roll {n}." for n in range(10)])], wordings_per_step=4)
    taken = [name for step in asked(plan, 5) for name in step]
    assert [len(step) for step in asked(plan, 5)] == [4] * 5
    assert sorted(Counter(taken[:10]).values()) == [1] * 10
    assert sorted(Counter(taken).values()) == [2] * 10
    assert asked(plan, 5) == asked(plan, 5)
    assert asked(plan, 5) != asked(visits(plan.questions, seed=1, wordings_per_step=4), 5)


def test_the_losses_of_a_step_weigh_the_mean_over_prompts_and_wordings():
    questions = [question(["Roll.", "Throw."], "a.json"), question("Toss.", "b.json"), question("Spin.", "c.json")]
    plan = visits(questions, prompts_per_step=2)
    for number in range(plan.per_iteration):
        taken, _ = plan.step(number)
        assert sum(visit.share for visit in taken) == pytest.approx(1)
        prompts = {visit.question.alias for visit in taken}
        for visit in taken:
            assert visit.share == pytest.approx(1 / len(prompts) / len(visit.question.wordings))
            assert sum(visit.encoded.trie.weights) == pytest.approx(visit.share)
            assert visit.encoded.prompt.probabilities == (0.25, 0.75)


@pytest.mark.parametrize("way", [PackedPass(), RowsPass(1)])
def test_a_scaled_tree_has_the_scaled_gradient_and_the_same_log_probabilities(way):
    model = tiny_llama().double()
    example = question("Roll.").wordings[0]
    scaled = type(example)(**{**vars(example), "trie": example.trie.scaled(0.125)})
    (log_probs, expected), (found, scaled_gradient) = gradient(way, example, model), gradient(way, scaled, model)
    np.testing.assert_allclose(found, log_probs)
    assert_same_gradient(scaled_gradient, 0.125 * expected)


def test_a_step_has_no_more_requests_than_there_are_prompts():
    plan = visits([question(["Roll.", "Throw."], "a.json"), question("Toss.", "b.json")], prompts_per_step=64)
    assert plan.most_requests == 4
    assert len(plan.step(0)[0]) == 3


def test_a_scaled_tree_is_the_tree_with_other_weights():
    trie = TokenTrie.build([(1, 2), (3,)], [0.25, 0.75])
    half = trie.scaled(0.5)
    assert (half.weights.tolist(), half.masses.tolist()) == ([0.125, 0.375], [0.125, 0.125, 0.375])
    assert half.tokens.tolist() == trie.tokens.tolist()
    assert trie.scaled(1) is trie


def test_contexts_change_what_is_asked_and_nothing_else():
    class Shouting:
        def around(self, prompt, *key):
            return prompt.model_copy(update={"request": f"{prompt.request} {key[-1]}!", "system": "Shout."})

    plan = Visits([question("Roll.")], AlgConfig(), 0, CHAT, Shouting())
    (first,), (second,) = plan.step(0)[0], plan.step(1)[0]
    assert first.encoded.prompt.request == "Roll. 0!"
    assert second.encoded.prompt.request == "Roll. 1!"
    assert first.encoded.trie is first.question.wordings[0].trie
    assert first.encoded.prompt_ids == encode_prompt(first.encoded.prompt, CHAT).prompt_ids


def test_a_visit_in_a_context_counts_its_share_whatever_the_template():
    class Shouting:
        def around(self, prompt, *key):
            return prompt.model_copy(update={"request": f"{prompt.request}!"})

    wordings = question(["Roll.", "Throw it."]).prompt
    chat = Chat(plain_tokenizer())
    plan = Visits([Question.of(wordings, chat)], AlgConfig(), 0, chat, Shouting())
    taken, _ = plan.step(0)
    assert [sum(visit.encoded.trie.weights) for visit in taken] == pytest.approx([0.5, 0.5])


def test_a_context_in_which_a_prompt_is_too_long_is_left_out():
    class Shouting:
        def around(self, prompt, *key):
            return prompt.model_copy(update={"request": f"{prompt.request}{'!' * (1 + 9 * key[-1])}"})

    asked = question("Roll.")
    most = row_length(asked.wordings[0]) + 1
    plan = Visits([asked], AlgConfig(), 0, CHAT, Shouting(), most_tokens=most)
    assert [plan.step(number)[0][0].encoded.prompt.request for number in range(2)] == ["Roll.!", "Roll."]
    placed = [(text, asked.prompt.model_copy(update={"request": text})) for text in ("Roll.!", "Roll.!!")]
    assert [e.prompt.request for e in asked.in_contexts(placed, CHAT, most).wordings] == ["Roll.!"]
    assert asked.in_contexts(placed, CHAT, most - 1) is None


def test_a_context_that_the_chat_template_refuses_is_not_measured_and_in_training_told():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if messages|length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + tokenizer.chat_template
    )
    chat = Chat(tokenizer)
    asked = Question.of(question("Roll.").prompt, chat)
    placed = Contexts(Vary(turns=False)).held_out(asked.prompt)
    found = asked.in_contexts(placed, chat)
    assert [len(prompt.turns) for _, prompt in placed].count(1) == len(found.wordings) < len(placed)
    assert all(len(e.prompt.turns) == 1 for e in found.wordings)
    plan = Visits([asked], AlgConfig(), 0, chat, Contexts(Vary(system=False, greetings=False, typing=False, plain=0)))
    with pytest.raises(
        InputError, match=r"one turn only\. If the chat template accepts no earlier turns, set vary\.turns to false"
    ):
        plan.step(0)


def plain_tokenizer():
    """Turns without a special token between request and answer."""
    plain = byte_tokenizer()
    plain.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}\n{% else %}Answer:{{ m['content'] }}<|im_end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
    )
    return plain


def test_wordings_share_the_trie_only_where_a_special_token_separates_request_and_answer():
    one, other = question(["Roll.", "Throw it."]).wordings
    assert other.trie is one.trie
    assert other.prompt_ids == encode_prompt(other.prompt, CHAT).prompt_ids
    chat = Chat(plain_tokenizer())
    first = encode_prompt(one.prompt, chat)
    assert encode_like(other.prompt, chat, first).trie is not first.trie


def test_the_figures_of_a_prompt_are_the_means_of_its_wordings():
    several, single = question(["Roll.", "Throw."], "a.json"), question("Toss.", "b.json")
    found = Exact.of([several, single], [Figures(0.1, 0.9, 0.2), Figures(0.3, 0.7, 0.4), Figures(0.5, 1.0, 0.0)])
    assert found.kl == {"a.json": pytest.approx(0.2), "b.json": 0.5}
    assert found.on_target == {"a.json": pytest.approx(0.8), "b.json": 1.0}
    assert found.of_wordings == {"a.json": {"kl": [0.1, 0.3], "on_target": [0.9, 0.7], "tvd": [0.2, 0.4]}}


def test_held_out_wordings_are_a_question_of_their_own():
    whole = question("Roll.", "a.json", held_out=["Toss.", "Spin."])
    apart = whole.held_out_alone
    assert (apart.alias, [e.prompt.question for e in apart.wordings]) == ("a.json#held-out", ["Toss.", "Spin."])
    assert question("Roll.").held_out_alone is None


def test_a_sample_of_figures_counts_wordings_and_keeps_every_prompt_it_can():
    questions = [question([f"Roll {n}." for n in range(10)], f"{name}.json") for name in "abc"]
    some = sampled(questions, 12, "0")
    assert [q.alias for q in some] == ["a.json", "b.json", "c.json"]
    assert [len(q.wordings) for q in some] == [4, 4, 4]
    assert all(set(q.wordings) <= set(whole.wordings) for q, whole in zip(some, questions, strict=True))
    assert [len(q.wordings) for q in sampled(questions, 2, "0")] == [1, 1]
    assert sampled(questions, 30, "0") == questions
    uneven = [question("Roll.", "one.json"), *questions[:2]]
    assert [len(q.wordings) for q in sampled(uneven, 12, "0")] == [1, 6, 5], "what one prompt leaves over goes to the others"
