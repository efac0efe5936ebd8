"""Ollama's chat template says what the model's own says, in Go's language."""

import re

from jinja2 import Environment

from diffusecli.models.modelfile import go_template, modelfile
from tests.models.test_tokenizers import GEMMA_2, LLAMA_2, MISTRAL_V3
from tests.tiny import CHATML

DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML
)  # as in SmolLM2 and Qwen 2.5
PLAIN_TURNS = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}?{% endif %}{% endfor %}"


def rendered_by(template):
    def refuse(reason):
        raise ValueError(reason)

    jinja = Environment(autoescape=False).from_string(template)  # noqa: S701 (chat, not HTML)

    def render(messages):
        try:
            return jinja.render(
                messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", raise_exception=refuse
            )
        except ValueError:
            return None

    return render


def in_go(template, messages):
    """What Ollama makes of a template of the kind that is written: a loop over messages, or one request."""
    text = re.sub(r"\s*\{\{-", "{{", template)
    literal = r'\{\{ ("(?:[^"\\]|\\.)*") \}\}'

    def said(part):
        return re.sub(literal, lambda found: Environment().from_string("{{ " + found[1] + " }}").render(), part)  # noqa: S701

    if "range .Messages" not in text:
        return said(text).replace("{{ .Prompt }}", messages[-1]["content"])
    start, _, rest = text.partition("{{ range .Messages }}")
    body, _, prompt = rest.rpartition("{{ end }}")
    system = any(message["role"] == "system" for message in messages)
    default = re.fullmatch(r"\{\{ if not \.System \}\}(.*)\{\{ end \}\}", start)
    shown = "" if default is None or system else said(default[1])
    for message in messages:
        turn = re.search(rf'if eq \.Role "{message["role"]}" \}}\}}(.*?)\{{\{{ (?:else|end)', body, re.DOTALL)
        shown += said(turn[1]).replace("{{ .Content }}", message["content"]) if turn else ""
    return shown + said(prompt)


USER, REPLY, NEXT, SYSTEM = (
    {"role": role, "content": content}
    for role, content in (("user", "Hi"), ("assistant", "Yes."), ("user", "And?"), ("system", "S"))
)


def test_conversations_are_those_of_the_models_own_template():
    for template, begins in ((CHATML, ""), (DEFAULT, ""), (GEMMA_2, "<s>")):
        render = rendered_by(template)
        made = go_template(render, begins)
        for messages in ([USER], [USER, REPLY, NEXT], [SYSTEM, USER], [SYSTEM, USER, REPLY, NEXT]):
            if (expected := render(messages)) is not None:
                assert in_go(made, messages) == expected.removeprefix(begins)


def test_a_default_system_prompt_is_there_only_without_another():
    made = go_template(rendered_by(DEFAULT), "")
    assert made.startswith(r'{{- if not .System }}{{ "<|im_start|>system\nYou help.<|im_end|>\n" }}{{- end }}')


def test_a_template_that_cannot_be_explained_serves_one_request():
    """Llama 2 puts the system prompt into the first request; the turns of the other one cannot be told apart."""
    for template, begins in ((LLAMA_2, "<s>"), (PLAIN_TURNS, "")):
        render = rendered_by(template)
        made = go_template(render, begins)
        assert in_go(made, [USER]) == render([USER]).removeprefix(begins)
    assert go_template(rendered_by(PLAIN_TURNS), "") == '{{ .Prompt }}{{ "?" }}'


def test_mistrals_conversations_have_no_system_role():
    render = rendered_by(MISTRAL_V3)
    made = go_template(render, "<s>")
    assert in_go(made, [USER]) == render([USER]).removeprefix("<s>") == "[INST] Hi[/INST]"


def test_stop_texts_are_written_as_they_are():
    written = modelfile("m.gguf", "{{ .Prompt }}", ["\nUser:", '"}'])
    assert written.endswith('PARAMETER stop "\nUser:"\nPARAMETER stop """"}"""\n')
