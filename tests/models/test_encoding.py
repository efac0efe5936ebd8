"""From prompts to tokens, on a byte tokenizer and on the built-in model's own."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusecli.models import answer_tokens
from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.token_view import view_tokens
from diffusecli.models.tokens import decode_answer
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.system.errors import InputError
from diffusecli.training.spelled import loss_of, lowest_loss
from tests.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()
END = 2


def prompt(*targets, **fields):
    return Prompt(request="Say a letter.", targets=targets, alias="p.json", **fields)


def test_targets_end_with_the_terminator_and_nothing_after_it():
    encoded = encode_prompt(prompt("{a}", "{b}"), Chat(TOKENIZER))
    assert [decode_answer(TOKENIZER, encoded.trie.path(i)) for i in (0, 1)] == ["{a}", "{b}"]
    assert all(encoded.trie.path(i)[-1] == END and END not in encoded.trie.path(i)[:-1] for i in (0, 1))


def test_the_prompt_is_the_rendered_generation_prompt():
    encoded = encode_prompt(prompt("{a}"), Chat(TOKENIZER))
    text = TOKENIZER.decode(encoded.prompt_ids)
    assert text == "<|im_start|>user\nSay a letter.<|im_end|>\n<|im_start|>assistant\n"


def test_without_eos_the_terminator_is_left_out():
    assert END not in encode_prompt(prompt("{a}", "{b}", eos=False), Chat(TOKENIZER)).trie.tokens


def test_response_variants_are_equally_likely_paths_of_their_target():
    encoded = encode_prompt(prompt("{a}", "{b}", weights=[3, 1], response=["", "Sure: "]), Chat(TOKENIZER))
    assert encoded.owners == (0, 0, 1, 1)
    assert encoded.trie.weights.tolist() == [0.375, 0.375, 0.125, 0.125]
    assert decode_answer(TOKENIZER, encoded.trie.path(1)) == "Sure: {a}"


def test_spellings_are_paths_of_their_target_and_of_one_choice_after_each_variant():
    """By hand: .75 over two variants, each over two spellings; .25 over two variants."""
    encoded = encode_prompt(prompt(["{a}", "a"], "{b}", weights=[3, 1], response=["", "Sure: "]), Chat(TOKENIZER))
    spelled = [decode_answer(TOKENIZER, encoded.trie.path(i)) for i in range(6)]
    assert spelled == ["{a}", "a", "Sure: {a}", "Sure: a", "{b}", "Sure: {b}"]
    assert encoded.owners == (0, 0, 0, 0, 1, 1)
    assert encoded.choices == (0, 0, 1, 1, 2, 3)
    assert encoded.trie.weights.tolist() == [0.1875, 0.1875, 0.1875, 0.1875, 0.125, 0.125]
    assert lowest_loss(encoded) == pytest.approx(-2 * (0.375 * math.log(0.375) + 0.125 * math.log(0.125)))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9), st.integers(1, 3))
def test_targets_of_one_spelling_are_encoded_to_the_bit_as_before_there_were_spellings(weights, variants):
    texts = [f"{{{place}}}" for place in range(len(weights))]
    fields = {"weights": weights, "response": [f"{'so ' * place}" for place in range(variants)]}
    found = [encode_prompt(prompt(*targets, **fields), Chat(TOKENIZER)) for targets in (texts, [[text] for text in texts])]
    assert found[0] == found[1]
    assert found[0].choices == ()
    assert found[0].trie.weights.tolist() == [p / variants for p in found[0].prompt.probabilities for _ in range(variants)]
    assert lowest_loss(found[0]) == found[0].trie.entropy
    log_probs = -np.arange(1.0, 1 + len(texts) * variants)
    assert loss_of(found[0], log_probs) == -np.dot(found[0].trie.weights, log_probs)


def test_a_longer_spelling_makes_the_prompt_longer():
    encoded = encode_prompt(prompt(["7", "seven"], "8"), Chat(TOKENIZER))
    assert encoded.longest == len("seven") + 1
    assert (encoded.longer_than(2), encoded.longer_than(6)) == (1, 0)


def test_the_view_of_tokens_shows_every_spelling():
    (view,), problems = view_tokens([prompt(["{a}", "a"], "b")], [], Chat(TOKENIZER))
    assert [text for text, _ in view.target_tokens()] == ["{a}", "a", "b"]
    assert [len(tokens) for _, tokens in view.target_tokens()] == [4, 2, 2]
    assert problems == []


def test_a_prompt_without_targets_still_knows_its_stop_tokens():
    encoded = encode_prompt(prompt(), Chat(TOKENIZER, frozenset({0})))
    assert encoded.stop_ids == {0, END}
    assert len(encoded.trie) == 0


def test_a_target_that_begins_another_is_refused_without_eos_and_named():
    with pytest.raises(InputError, match=r"p\.json: the answers '1' and '10' cannot be distinguished"):
        encode_prompt(prompt("1", "10", eos=False), Chat(TOKENIZER))
    assert len(encode_prompt(prompt("1", "10"), Chat(TOKENIZER)).trie.leaves) == 2


def test_a_model_without_a_chat_template_is_a_clear_error():
    bare = byte_tokenizer()
    bare.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        encode_prompt(prompt("{a}"), Chat(bare))


def test_a_system_text_that_a_template_forgets_once_there_is_an_answer_goes_into_the_request():
    """As the templates of some Mistral models, which put it before the request only where that is the last message."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}[{% if loop.last and messages[0].role == 'system' %}"
        "{{ messages[0].content }}\n\n{% endif %}{{ m.content }}]"
        "{% elif m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    encoded = encode_prompt(prompt("{a}", system="Be brief."), Chat(tokenizer))
    assert tokenizer.decode(encoded.prompt_ids) == "[Be brief.\n\nSay a letter.]"
    assert encoded.remarks == ("the chat template does not support a system prompt. It is put before the request",)
    assert encode_prompt(prompt("{a}", system=""), Chat(tokenizer)).remarks == ()


def test_a_model_with_several_templates_is_talked_to_by_its_default():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"tool_use": "{{ raise_exception('no tools') }}", "default": tokenizer.chat_template}
    assert encode_prompt(prompt("{a}"), Chat(tokenizer)) == encode_prompt(prompt("{a}"), Chat(TOKENIZER))


def test_a_target_that_holds_the_terminator_is_refused():
    with pytest.raises(InputError, match="is changed by the tokenizer to"):
        encode_prompt(prompt("{a<|im_end|>b}"), Chat(TOKENIZER))


@pytest.mark.model
def test_the_built_in_tokenizer_splits_digits_and_ends_turns(builtin_model):
    encoded = encode_prompt(prompt("{10}", "{1}"), builtin_model.chat)
    pieces = [builtin_model.tokenizer.convert_ids_to_tokens(list(encoded.trie.path(i))) for i in (0, 1)]
    assert pieces == [["{", "1", "0", "}", "<|im_end|>"], ["{", "1", "}", "<|im_end|>"]]
    assert encoded.stop_ids == {2}


@pytest.mark.model
def test_every_library_prompt_comes_back_from_the_built_in_tokenizer(builtin_model):
    for library_prompt in read_prompts(["prompts"]):
        encoded = encode_prompt(library_prompt, builtin_model.chat)
        texts = [decode_answer(builtin_model.tokenizer, encoded.trie.path(i)) for i in range(len(encoded.trie.leaves))]
        assert texts == list(library_prompt.targets)


@pytest.mark.parametrize("trimming", [False, True])
def test_very_many_answers_are_rendered_by_shape_and_tokenised_behind_a_part_of_the_prompt(monkeypatch, trimming):
    """To the same tree as one by one; where the template changes a shape, all are looked at."""
    tokenizer = byte_tokenizer()
    if trimming:
        tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "m['content'] | trim")
    texts = [f"{{{number}}}" for number in range(150)] + ["{two words}", " {spaced}", "{ä}", "{x-y}"]
    asked = prompt(*texts, response=["", "So: "])
    each = encode_prompt(asked, Chat(tokenizer))
    monkeypatch.setattr(answer_tokens, "_MANY", 50)
    rendered = []
    monkeypatch.setattr(Chat, "render", lambda *a, render=Chat.render: rendered.append(a[3:]) or render(*a))
    together = encode_prompt(asked, Chat(tokenizer))
    assert together == each
    assert any(" {spaced}" in remark for remark in together.remarks) == trimming
    assert (len(rendered) > len(texts)) == trimming


def test_of_very_many_answers_one_that_does_not_come_back_is_named(monkeypatch):
    monkeypatch.setattr(answer_tokens, "_MANY", 50)
    texts = [f"{{{number}}}" for number in range(150)]
    with pytest.raises(InputError, match=r"the target '\{<\|im_end\|>7\}' is changed by the tokenizer to '\{'"):
        encode_prompt(prompt(*texts, "{<|im_end|>7}"), Chat(TOKENIZER))
    with pytest.raises(InputError, match=r"p\.json: the answers '1' and '10' cannot be distinguished"):
        encode_prompt(prompt(*map(str, range(1, 100)), eos=False), Chat(TOKENIZER))
