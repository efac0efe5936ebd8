"""Chat settings of a model: tokenizer, chat template, template variables, system prompt.

It renders conversations as text. `encoding.py` converts them to tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusecli.files.reading import TooLargeError, read_text
from diffusecli.models.tokens import special_ids
from diffusecli.prompts.config import PLAIN
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError, first_line, why_unreadable
from diffusecli.system.timeouts import at_most, little_memory

_PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}\n\n"
    "{% else %}Assistant: {{ message['content'] }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

_MOST_BYTES = 10_000_000  # maximum size of a template
_MOST_TEXT = 50_000_000  # characters of a conversation; the longest contexts have a few million tokens
_TIMEOUT = 5.0  # seconds to render one text
_MOST_MEGABYTES = 500
_ANOTHER = "Fix the template, or set another chat_template"

_PROBE_SYSTEM, _PROBE_REQUEST = "some4system", "some4request"
_DATE_WATCH = (
    "{%- set watch = namespace(asked=false) %}{%- macro strftime_now(format) %}{%- set watch.asked = true %}01 Jan 2026{% endmacro %}",
    "{{ 'asked for the date' if watch.asked }}",
)
"""Put around a template to detect whether it uses the date."""

Message = dict[str, str]


@dataclass(frozen=True)
class ChatSettings:
    """The user's chat settings."""

    template: str | None = None  # Jinja, or PLAIN; None: the model's own
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)  # variables of the template
    system: str | None = None  # for prompts without one; None: up to the template

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings to record with samples and runs: only those that are set."""
        template = self.template and (self.template if self.template == PLAIN else _fingerprint(self.template))
        said = {"chat_template": template, "chat_template_kwargs": dict(self.template_kwargs) or None, "system": self.system}
        return {key: value for key, value in said.items() if value is not None}

    def messages(self, prompt: Prompt) -> list[Message]:
        """The conversation before the answer."""
        system = self.system if prompt.own_system is None else prompt.own_system
        asked = [turn.model_dump() for turn in prompt.turns]
        return asked if system is None else [{"role": "system", "content": system}, *asked]


def read_template(named: str | None) -> str | None:
    """The text of a Jinja file; PLAIN and None are returned unchanged. Raises `InputError` for invalid templates."""
    from jinja2 import TemplateSyntaxError

    if named is None or named == PLAIN:
        return named
    try:
        text = read_text(Path(named), _MOST_BYTES)
        _variables(text)
    except TemplateSyntaxError as error:
        raise InputError(f"{named}:{error.lineno}: invalid chat template: {error.message}. Correct the file") from error
    except TooLargeError as error:
        raise InputError(f"chat_template {named}: {error}. Use a Jinja file") from error
    except (RecursionError, ArithmeticError, TypeError, MemoryError) as error:  # Jinja evaluates constants
        raise InputError(f"{named}: the chat template cannot be parsed ({first_line(error)}). Correct the file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"chat_template {named}: {why_unreadable(error)}. Use a Jinja file or the built-in '{PLAIN}'") from error
    return text


@dataclass(frozen=True)
class Chat:
    """A tokenizer and the settings that turn a request into the model's input text."""

    tokenizer: Any
    eos_ids: frozenset[int] = frozenset()  # the model's own stop tokens
    settings: ChatSettings = field(default_factory=ChatSettings)
    rows: int | None = None  # rows of the model's embedding (it knows ids below); None if only the tokenizer is known

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return str(self.tokenizer.name_or_path) or "this model"

    @cached_property
    def template(self) -> Any:
        """The chat template: the user's, otherwise the model's own."""
        if self.settings.template != PLAIN:
            own = self.tokenizer.chat_template
            return self.settings.template or (own.get("default") if isinstance(own, dict) else own)  # some models have several
        return ("{{ bos_token }}" if self.begins_texts else "") + _PLAIN_TEMPLATE

    @property
    def portable_template(self) -> Any:
        """The template with variables and system prompt built in, for use without these settings."""
        variables = dict(self.settings.template_kwargs)  # Jinja literals have Python's syntax
        first = "".join(f"{{%- set {name} = {value!r} %}}" for name, value in variables.items()) + self._own_system()
        return self.template if not first else first + "{{- '' }}" + self.template  # keeps leading white space

    def _own_system(self) -> str:
        """Jinja code that adds the system prompt to conversations without one, as `messages` does."""
        if self.settings.system is None:
            return ""
        asked, _ = self.messages(Prompt(request=_PROBE_REQUEST, targets=()))
        if asked[0]["role"] == "system":
            added = f"[{asked[0]!r}] + messages"
        else:
            before = asked[0]["content"].removesuffix(_PROBE_REQUEST)
            added = f"[{{'role': 'user', 'content': {before!r} ~ messages[0]['content']}}] + messages[1:]"
        return f"{{%- if messages[0]['role'] != 'system' %}}{{%- set messages = {added} %}}{{%- endif %}}"

    def messages(self, prompt: Prompt) -> tuple[list[Message], bool]:
        """The conversation before the answer, and whether the system prompt was moved into the request.

        It is moved if the template refuses a system message, omits it, or drops it once there is an answer.
        """
        messages = self.settings.messages(prompt)
        if messages[0]["role"] != "system" or self._keeps_first(messages):
            return messages, False
        system, first, *others = messages
        text = f"{system['content']}\n\n{first['content']}" if system["content"] else first["content"]
        return [{**first, "content": text}, *others], bool(system["content"])

    def render(self, messages: Sequence[Message], alias: str, answer: str | None = None) -> str:
        """The conversation as text: before the answer, or with it.

        Raises `InputError` when the model has no template, or its template refuses the conversation.
        """
        if self.template is None:
            raise InputError(
                f"{self.name}: the model has no chat template. Set chat_template to '{PLAIN}' or to a Jinja file "
                "(config, or --chat-template), or use an instruction-tuned model"
            )
        said = [] if answer is None else [{"role": "assistant", "content": answer}]
        try:
            return self._rendered([*messages, *said], add_generation_prompt=answer is None)
        except _RefusedError as error:
            raise InputError(f"{alias}: the model's chat template refuses this conversation: {error}") from error

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The special tokens."""
        return special_ids(self.tokenizer)

    @cached_property
    def unused(self) -> list[str]:
        """Configured variables that the template does not use."""
        if not self.settings.template_kwargs:
            return []  # no need to parse the template
        try:
            known = _variables(str(self.template))
        except Exception:  # the model's own template may fail to parse
            return []
        return [name for name in self.settings.template_kwargs if name not in known]

    def dated(self, messages: Sequence[Message]) -> bool:
        """Whether the template writes today's date into the prompt."""
        if "strftime_now" not in str(self.template):
            return False
        try:
            return self._rendered(messages, add_generation_prompt=True, around=_DATE_WATCH).endswith("asked for the date")
        except _RefusedError:  # it uses the date in a way that the fake date does not support
            return True

    def _keeps_first(self, messages: Sequence[Message]) -> bool:
        """Whether the template keeps the first message, in prompts and in conversations alike."""
        marked = [{**messages[0], "content": _PROBE_SYSTEM}, *messages[1:]]  # the user's own text may also occur elsewhere
        answered = [*marked, {"role": "assistant", "content": "some answer"}]
        try:
            prompt = self._rendered(marked, add_generation_prompt=True)
            return _PROBE_SYSTEM in prompt and self._rendered(answered, add_generation_prompt=False).startswith(prompt)
        except _RefusedError:  # rendering without a system message reports the reason
            return False

    def _rendered(self, messages: Sequence[Message], *, add_generation_prompt: bool, around: tuple[str, str] = ("", "")) -> str:
        """Render. Raises `_RefusedError`, and `InputError` for a template that does not end or makes a text that is too long for any model."""
        try:
            with _bounded(f"{self.name}: the chat template is still running"):
                text = str(
                    self.tokenizer.apply_chat_template(
                        list(messages), chat_template=f"{around[0]}{self.template}{around[1]}", tokenize=False,
                        add_generation_prompt=add_generation_prompt, **self.settings.template_kwargs,
                    )
                )  # fmt: skip
        except InputError:
            raise
        except Exception as error:  # a template is a program: it may fail in any way
            raise _RefusedError(first_line(error)) from error
        if len(text) > _MOST_TEXT:
            raise InputError(f"{self.name}: the chat template makes a text of {len(text)} characters. {_ANOTHER}")
        return text

    @property
    def begins_texts(self) -> bool:
        """Whether this tokenizer adds its BOS token to every text."""
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos]


class _RefusedError(Exception):
    """A template failed on a conversation; the message is one line."""


@contextmanager
def _bounded(activity: str) -> Iterator[None]:
    """Raises `InputError` for a template that takes too long, and `MemoryError` for one that needs too much memory."""
    with at_most(_TIMEOUT, InputError(f"{activity} after {_TIMEOUT:g} s. {_ANOTHER}")), little_memory(_MOST_MEGABYTES):
        yield


def _variables(template: str) -> set[str]:
    """The variables of a template, parsed with the tags of transformers. Raises jinja2's errors."""
    from jinja2 import meta, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks trained text; ignored here."""

        tags = {"generation"}  # noqa: RUF012 (declared so by jinja2)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            """The statements inside the tag."""
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols", Generation])
    with _bounded("the chat template is still being read"):  # Jinja evaluates constants while parsing
        return meta.find_undeclared_variables(environment.parse(template))


def _fingerprint(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"
