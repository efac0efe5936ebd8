"""From requests to text: templates, system texts, and what templates refuse."""

import pytest

from diffusecli.models.chat import Chat, ChatSettings, read_template
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.tokens import decode_answer
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from tests.tiny import CHATML, byte_tokenizer

TOKENIZER = byte_tokenizer()
END = 2
WITHOUT_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
DEAF = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
GLUED = "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] }}]{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
WORDY = (
    "{% for m in messages %}{{ '\n### ' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    "{{ '\n### assistant\n' if add_generation_prompt else '\n### user' }}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def chat(template=CHATML, tokenizer=TOKENIZER, **settings):
    return Chat(tokenizer, settings=ChatSettings(template, **settings))


def encoded(*targets, chat=None, **fields):
    return encode_prompt(Prompt(request="Say.", targets=targets, alias="p.json", **fields), chat or Chat(TOKENIZER))


def prompt_text(found, tokenizer=TOKENIZER):
    return tokenizer.decode(found.prompt_ids)


def answers(found, tokenizer=TOKENIZER):
    return [found.text(tokenizer, found.trie.path(i)[:-1]) for i in range(len(found.trie.leaves))]


def answers_of(found):
    return [decode_answer(TOKENIZER, found.trie.path(i)) for i in range(len(found.trie.leaves))]


def test_a_system_text_comes_from_the_prompt_else_from_the_settings():
    of_config = chat(system="S.")
    assert prompt_text(encoded(chat=of_config)).startswith("<|im_start|>system\nS.<|im_end|>\n<|im_start|>user")
    assert prompt_text(encoded(chat=of_config, system="P.")).startswith("<|im_start|>system\nP.<|im_end|>")
    assert prompt_text(encoded(chat=of_config, system="")).startswith("<|im_start|>system\n<|im_end|>")
    assert prompt_text(encoded()).startswith("<|im_start|>user")


@pytest.mark.parametrize("template", [WITHOUT_SYSTEM, DEAF])
def test_where_the_template_has_no_place_for_it_it_goes_before_the_request(template):
    found = encoded("{a}", chat=chat(template, system="Be brief."))
    assert prompt_text(found) == "<|im_start|>user\nBe brief.\n\nSay.<|im_end|>\n<|im_start|>assistant\n"
    assert found.remarks == ("the chat template does not support a system prompt. It is put before the request",)
    assert encoded("{a}", chat=chat(template, system="")).remarks == ()


def test_what_a_template_puts_before_every_answer_is_part_of_the_prompt():
    thinking = encoded("{a}", chat=chat(THINKING))
    assert prompt_text(thinking).endswith("assistant\n<think>\n\n</think>\n\n")
    assert "enable_thinking: false" in thinking.remarks[0]
    told = encoded("{a}", chat=chat(THINKING, template_kwargs={"enable_thinking": False}))
    assert told.prompt_ids == thinking.prompt_ids
    assert told.remarks == ()
    assert answers(told) == answers(thinking) == ["{a}"]


def test_a_system_text_whose_words_stand_elsewhere_is_not_lost():
    found = encoded("{a}", chat=chat(DEAF, system="Say"))
    assert "Say\n\nSay." in prompt_text(found)
    quoting = CHATML.replace("{{ m['content'] }}", "{{ m['content'] | tojson if m['role'] == 'system' else m['content'] }}")
    assert encoded("{a}", chat=chat(quoting, system='"quoted"')).remarks == ()


@pytest.mark.parametrize(
    "date", ["strftime_now('%m') | int + 1", "strftime_now(format='%d')", "strftime_now('%d %b').split(' ')[1]"]
)
def test_a_date_that_is_computed_with_is_told_too(date):
    assert "today's date" in encoded("{a}", chat=chat("{{ " + date + " }}" + CHATML)).remarks[0]


def test_a_target_that_begins_what_ends_answers_is_refused():
    hashes = "{% for m in messages %}{{ m['content'] }}{{ '\n' if m['role'] == 'user' else '###' }}{% endfor %}"
    with pytest.raises(InputError, match="the target 'C#' contains '###' or ends with its beginning"):
        encoded("C#", chat=chat(hashes))
    assert answers_of(encoded("{c}", chat=chat(hashes))) == ["{c}###"]


def test_an_ending_that_depends_on_the_answer_is_not_blamed_on_the_answers_words():
    asking = CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}{{ '?' if 'a' in m['content'] and m['role'] == 'assistant' }}")
    with pytest.raises(InputError, match="puts different text around the target 'b' than around other answers"):
        encoded("b", chat=chat(asking.replace("'a' in", "'4' in")))


def test_a_template_that_writes_the_date_is_told_and_can_be_pinned():
    dated = "{% if not day is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}{{ day }}" + CHATML
    found = encoded("{a}", chat=chat(dated))
    assert "today's date into the prompt" in found.remarks[0]
    pinned = encoded("{a}", chat=chat(dated, template_kwargs={"day": "1 Jan 2026"}))
    assert pinned.remarks == ()
    assert prompt_text(pinned).startswith("1 Jan 2026<|im_start|>")


def test_a_variable_that_the_template_does_not_know_is_told():
    assert encoded("{a}", chat=chat(THINKING, template_kwargs={"enable_thinkin": False})).remarks[0] == (
        "the chat template does not use the variable 'enable_thinkin' of chat_template_kwargs"
    )


def test_a_model_without_a_template_takes_the_plain_one():
    bare = byte_tokenizer()
    bare.chat_template = None
    with pytest.raises(InputError, match=r"no chat template\. Set chat_template to 'plain' or to a Jinja file"):
        encoded("{a}", chat=Chat(bare))
    found = encoded("{a}", "{b}", chat=Chat(bare, settings=ChatSettings("plain", system="S.")))
    assert prompt_text(found, bare) == "S.\n\nUser: Say.\n\nAssistant:"
    assert [decode_answer(bare, found.trie.path(i)) for i in (0, 1)] == [" {a}", " {b}"]
    assert answers(found, bare) == ["{a}", "{b}"], "the space belongs to the template"
    assert {found.trie.path(i)[-1] for i in (0, 1)} == {END}


def test_the_plain_template_begins_as_the_tokenizer_begins_texts():
    from tokenizers.processors import TemplateProcessing

    beginning = byte_tokenizer()
    beginning.bos_token = "<|im_start|>"
    assert encoded("{a}", chat=chat("plain", beginning)).prompt_ids[0] != 1
    beginning.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    assert encoded("{a}", chat=chat("plain", beginning)).prompt_ids[:2] == (1, TOKENIZER("User")["input_ids"][0])


def test_where_prompt_and_answer_would_share_a_token_the_answer_is_tokenised_by_itself():
    merging = byte_tokenizer(merges=[("]", "{")])
    assert merging("]{")["input_ids"] == [len(merging) - 1], "the two are one token"
    found = encoded("{a}", "b", chat=chat(GLUED, merging))
    assert prompt_text(found, merging) == "[Say.]"
    assert merging.convert_ids_to_tokens(found.trie.path(0)) == ["{", "a", "}", "<|im_end|>"]
    assert answers(found, merging) == ["{a}", "b"]


def test_a_turn_may_end_in_text_instead_of_a_token():
    found = encoded("{a}", "{bc}", chat=chat(WORDY))
    assert found.stop_text == "\n### user"
    assert [decode_answer(TOKENIZER, found.trie.path(i)) for i in (0, 1)] == ["{a}\n### user", "{bc}\n### user"]
    opened = encoded("{a}", "{bc}", chat=chat(WORDY), eos=False)
    assert [decode_answer(TOKENIZER, opened.trie.path(i)) for i in (0, 1)] == ["{a}", "{bc}"]
    with pytest.raises(InputError, match=r"the target 'x\\n### user' contains '\\n### user' or ends with its beginning"):
        encoded("x\n### user", chat=chat(WORDY))


def test_samples_end_before_the_text_that_ends_a_turn():
    from diffusecli.models.loading import LoadedModel
    from diffusecli.sampling.engine import drawn
    from diffusecli.sampling.local_engine import LocalEngine
    from diffusecli.sampling.settings import SamplingSettings
    from tests.tiny import tiny_llama

    template = "{% for m in messages %}<{{ m['content'] }}{% endfor %}{{ '' if add_generation_prompt else '=' }}"
    base = LoadedModel("m", tiny_llama(initializer_range=0.02), TOKENIZER, "r", ChatSettings(template))
    counts, _ = drawn(LocalEngine(base, SamplingSettings(200, max_new_tokens=40)), Prompt(request="x", targets=(), alias="x"))
    assert not any("=" in text for text in counts)
    ended = sum(count for text, count in counts.items() if len(TOKENIZER(text)["input_ids"]) < 35)
    assert ended > 10, "some come to their end"


def test_a_template_that_ends_no_turn_serves_targets_that_only_begin_an_answer():
    endless = chat("{% for m in messages %}{{ m['content'] }}|{% endfor %}".replace("|{%", "{{ '|' if m['role'] == 'user' }}{%"))
    with pytest.raises(InputError, match="does not end turns, so answers would never stop"):
        encoded("{a}", chat=endless)
    found = encoded("{a}", "{b}", chat=endless, eos=False)
    assert [decode_answer(TOKENIZER, found.trie.path(i)) for i in (0, 1)] == ["{a}", "{b}"]


def test_conversations_that_do_not_go_on_from_their_prompts_are_refused_with_both_token_sequences():
    other = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ 'Q' if add_generation_prompt else '<|im_end|>' }}"
    with pytest.raises(InputError, match=r"a prompt ends with \[.*'Q'\], the conversation has \[.*\] there") as error:
        encoded("{a}", chat=chat(other))
    assert "Set chat_template_kwargs or your own chat_template" in str(error.value)


def test_what_templates_and_tokenizers_change_is_told_and_what_they_lose_is_refused():
    from tokenizers import normalizers

    trimming = chat(CHATML.replace("m['content']", "m['content'] | trim"))
    assert encoded(" a ", "b", chat=trimming).remarks == ("p.json: the chat template trims white space: ' a ' is trained as 'a'",)
    composing = byte_tokenizer()
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    found = encoded("e\u0301", "b", chat=chat(tokenizer=composing))
    assert found.remarks == ("p.json: the tokenizer normalises text: 'e\u0301' is trained as 'é'",)
    composing.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="the target 'A' is changed by the tokenizer to 'a'"):
        encoded("A", chat=chat(tokenizer=composing))
    with pytest.raises(InputError, match=r"the chat template changes the target 'A' \(to 'a'\)"):
        encoded("A", chat=chat(CHATML.replace("m['content']", "m['content'] | lower")))
    with pytest.raises(InputError, match="contains half of a character"):
        encoded("\ud800", chat=chat())


def test_a_template_that_fails_is_a_sentence():
    with pytest.raises(InputError, match=r"p\.json: the model's chat template refuses this conversation: no system here"):
        encoded(chat=chat("{{ raise_exception('no system here') }}"))


def test_a_template_file_is_read_and_its_mistakes_have_a_line(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}\n{{ m.content }}\n{% endif %}")
    with pytest.raises(InputError, match=r"t\.jinja:3: invalid chat template: .*endif"):
        read_template(str(path))
    with pytest.raises(InputError, match=r"does not exist.*Use a Jinja file or the built-in 'plain'"):
        read_template(str(tmp_path / "none.jinja"))
    path.write_text("{% for m in messages %}{{ m.content }}{% break %}{% endfor %}")
    assert read_template(str(path)) == path.read_text()
    path.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    assert read_template(str(path)) == path.read_text()
    assert (read_template("plain"), read_template(None)) == ("plain", None)
