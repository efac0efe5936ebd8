"""Errors and warnings of a prompt whose keys and types are valid.

Knows prompts as text, and the document for positions. Reads no files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from diffusecli.files.documents import Document
from diffusecli.files.positions import Location
from diffusecli.files.text import canonical
from diffusecli.prompts.parts import example
from diffusecli.prompts.prompt import Draws, Prompt
from diffusecli.prompts.templates import Template
from diffusecli.prompts.wording_checks import DOUBLED_BRACES, contradictions, loose_brace
from diffusecli.system.errors import InputError, Problem, did_you_mean, many, shortened

_SET = re.compile(r"\{-?\d+(?:\.\.|, (?:…|\.\.\.), )-?\d+\}")
"""A set of numbers, {1, …, 10} or {1..10}. It does not show the form of an answer."""


def checked(prompt: Prompt) -> Prompt:
    """Check a prompt that was not read from a file. Raises `InputError` for the same errors as in a file."""
    document = Document(prompt.alias, prompt.to_json(), json.loads(prompt.to_json()))
    if errors := [p for p in content_problems(document, prompt) if p.severity == "error"]:
        raise InputError.of(errors)
    return prompt


def content_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """Errors and warnings of a prompt whose keys and types are valid."""
    yield from _request_problems(document, prompt)
    yield from _wording_doubts(document, prompt)
    yield from _target_problems(document, prompt)
    if not prompt.eos:
        yield from _prefix_problems(document, prompt)
    if prompt.weights:
        yield from _weight_problems(document, prompt.weights, len(prompt.targets))
    if prompt.draws is not None:
        yield from _draw_problems(document, prompt, prompt.draws)
    if prompt.template is not None:
        yield from _template_problems(document, prompt)
    if prompt.independent:
        yield from _independent_problems(document, prompt)
    yield from _format_doubts(document, prompt)
    yield from _likeness_doubts(document, prompt.targets)


def _request_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """Missing or duplicate requests, and conversations that do not end with the user."""
    if prompt.messages:
        yield from _message_problems(document, prompt)
    elif isinstance(prompt.request, tuple) and not prompt.request:
        yield document.problem(("request",), "the list of requests is empty", "write what to ask")
    elif not prompt.requests:
        yield document.problem((), "there is no request", "add request, or messages for a conversation")
    known: dict[str, str] = {}  # request -> the field that has it
    for key, texts in (("request", prompt.requests), ("held_out_requests", prompt.held_out_requests)):
        for index, text in enumerate(texts):
            where = (key,) if isinstance(getattr(prompt, key), str) else (key, index)
            if not text.strip():
                yield document.problem(where, f"the request {text!r} is empty", "remove it or write text")
            elif known.setdefault(canonical(text), key) != key:
                yield document.problem(
                    where, f"the held-out request {_short(text)} is also trained", "remove it from one of the two lists"
                )
            elif canonical(text) in map(canonical, texts[:index]):
                yield document.problem(where, f"duplicate request {_short(text)}", "remove one of them")


def _message_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    if prompt.requests:
        yield document.problem(("messages",), "both request and messages are given", "keep one of them")
    if prompt.held_out_requests:
        yield document.problem(("held_out_requests",), "held_out_requests needs request instead of messages", "remove them")
    for index, message in enumerate(prompt.messages):
        if message.role == "system" and index:
            yield document.problem(
                ("messages", index), "a system message is not the first message", "move it to the front or change its role to user"
            )
        elif message.role == "system" and prompt.system is not None:
            yield document.problem(("system",), "both system and a system message are given", "keep one of them")
    last = len(prompt.messages) - 1
    if prompt.messages[last].role != "user":
        yield document.problem(
            ("messages", last),
            f"the last message has the role {prompt.messages[last].role}",
            "end the messages with the user's question",
        )
    elif not prompt.messages[last].content.strip():
        yield document.problem(("messages", last), "the last message is empty", "write what the user asks")


def _wording_doubts(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """Wordings that contradict others."""
    requests = (*prompt.requests, *prompt.held_out_requests)
    for index, other, message in contradictions(requests, prompt.targets):
        where = ("request", index) if index < len(prompt.requests) else ("held_out_requests", index - len(prompt.requests))
        yield document.problem(
            where, f"the request {_short(requests[index])} has {message} as in {_short(requests[other])}",
            "make all requests ask for the same", severity="warning",
        )  # fmt: skip


def _short(text: str) -> str:
    return repr(shortened(text, 60))


def _spelled(prompt: Prompt) -> list[tuple[Location, str]]:
    """Every spelling of every target, with its location in the file."""
    return [
        (("targets", index) if isinstance(outcome, str) else ("targets", index, place), text)
        for index, outcome in enumerate(prompt.outcomes)
        for place, text in enumerate([outcome] if isinstance(outcome, str) else outcome)
    ]


def _target_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    for index, spellings in enumerate(prompt.spellings):
        if not spellings:
            yield document.problem(("targets", index), "the target has no spelling", "write one or remove the target")
    first: dict[str, tuple[Location, str]] = {}
    for where, text in _spelled(prompt):
        place, same = first.setdefault(canonical(text), (where, text))
        what = "spelling" if len(where) > 2 else "target"
        if not text.strip():
            yield document.problem(where, f"the {what} {text!r} is empty", "remove it or write text")
        elif place == where:
            continue
        elif same != text:
            yield document.problem(
                where, f"the {what} {text!r} equals {same!r} after trimming and normalisation (NFC)", "keep one of them"
            )
        elif len(where) == len(place) == 2:
            yield document.problem(where, f"duplicate target {text!r}", "keep one and add up the weights")
        else:
            kept = "" if where[1] == place[1] else ": a spelling belongs to one target"
            yield document.problem(where, f"duplicate {what} {text!r}", f"keep one of them{kept}")


def _prefix_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """Targets that are a prefix of another: without an end they cannot be distinguished."""
    ordered = sorted(_spelled(prompt), key=lambda spelled: spelled[1])
    for (where, shorter), (_, longer) in pairwise(ordered):
        if longer.startswith(shorter) and longer != shorter:
            what = "spelling" if len(where) > 2 else "target"
            yield document.problem(
                where, f"with eos: false the {what} {shorter!r} is a prefix of {longer!r}",
                "end each target with a closing character, such as a brace",
            )  # fmt: skip


def _weight_problems(
    document: Document, weights: Sequence[float], targets: int, what: str = "target", within: Location = ()
) -> Iterator[Problem]:
    at = (*within, "weights")
    bad = [index for index, weight in enumerate(weights) if not math.isfinite(weight) or weight < 0]
    if len(weights) != targets:
        yield document.problem(at, f"{many(len(weights), 'weight')} for {many(targets, what)}",
                               f"give one weight per {what}, or none for a uniform distribution")  # fmt: skip
    for index in bad:
        yield document.problem((*at, index), f"the weight {weights[index]:g} is not a probability",
                               "write a finite number that is zero or more")  # fmt: skip
    if all(weight == 0 for weight in weights):
        yield document.problem(at, "all weights are zero", f"give at least one {what} a positive weight")
    elif not bad and math.isinf(total := sum(weights)):
        yield document.problem(at, "the sum of the weights is too large", "divide all weights by the same number")
    elif not bad and (whole := _meant_to_sum_to(weights, total)) and not math.isclose(total, whole, rel_tol=1e-6):
        yield document.problem(
            at, f"the weights sum to {total:g}, not {whole}", "they will be divided by this sum", severity="notice"
        )


def _meant_to_sum_to(weights: Sequence[float], total: float) -> int:
    """1 if the weights look like shares, 100 if they look like percentages, else 0: weights may be counts of any size.

    >>> _meant_to_sum_to([0.5, 0.2], 0.7), _meant_to_sum_to([50, 45], 95), _meant_to_sum_to([5, 7], 12), _meant_to_sum_to([1.5, 2], 3.5)
    (1, 100, 0, 0)
    """
    fractions = any(weight != int(weight) for weight in weights)
    if fractions and (max(weights) <= 1 or 0.8 <= total <= 1.2):
        return 1
    return 100 if 90 <= total <= 110 else 0


def _draw_problems(document: Document, prompt: Prompt, draws: Draws) -> Iterator[Problem]:
    """Draws that no sequence can contain, or that cannot be separated in it."""
    possible = (
        sum(p > 0 for p in prompt.probabilities) if prompt.targets and len(prompt.weights or ()) in (0, len(prompt.targets)) else 0
    )
    if not prompt.targets:
        yield document.problem(("draws",), "there are no targets to draw from", "add targets or remove draws")
    if draws.wrap.count("%s") != 1:
        yield document.problem(("draws", "wrap"), f"wrap {draws.wrap!r} must contain %s once", "put %s in place of the draws")
    if not draws.replace and draws.n > possible:
        yield document.problem(("draws", "n"), f"{draws.n} draws without replacement, but only {many(possible, 'target')} with positive weight",
                               "reduce n, or set replace to true")  # fmt: skip
    for index, target in enumerate(prompt.targets):
        if (draws.separator.strip() or draws.separator) in target or draws.template.misread([target] * draws.n) is not None:
            yield document.problem(("targets", index), f"the target {target!r} contains the separator {draws.separator!r}",
                                   "use a separator that is in no target")  # fmt: skip
            break
    yield from _whole_answers_only(document, prompt, "draws", "template")


def _whole_answers_only(document: Document, prompt: Prompt, key: str, *more: str) -> Iterator[Problem]:
    """Fields of the prompt that cannot be combined with answers in parts."""
    others = {
        "response": prompt.variants != ("",),
        "eos": not prompt.eos,
        "spellings": len(prompt.every_spelling) > len(prompt.targets),
        **{name: getattr(prompt, name) is not None for name in more},
    }
    for name in (name for name, there in others.items() if there):
        yield document.problem(
            (key,), f"{key} cannot be combined with {name}{': false' if name == 'eos' else ''}", "remove one of them"
        )


def _independent_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """Independent fields that are not in the template or in the targets, or whose values cannot be distinguished from the text around them."""
    yield from _whole_answers_only(document, prompt, "independent", "draws")
    try:
        template = Template.of(prompt.template or "")
    except InputError:
        if prompt.template is None:
            yield document.problem(("independent",), "there is no template whose fields are independent", "add template")
        return  # an invalid template was reported
    for name, own in prompt.independent.items():
        where: Location = ("independent", name)
        if name not in template.fields:
            yield document.problem(where, f"'{name}' is not a field of the template", did_you_mean(name, list(template.fields)))
            continue
        if not own.values:
            yield document.problem((*where, "values"), f"the field '{name}' has no values", "write at least one")
        seen = set[str]()
        for index, value in enumerate(own.values):
            if not value or value != canonical(value):
                yield document.problem((*where, "values", index), f"the value {value!r} is empty or starts or ends with white space",
                                       "remove it or write it without")  # fmt: skip
            elif value in seen:
                yield document.problem((*where, "values", index), f"duplicate value {value!r}", "keep one and add up the weights")
            seen.add(value)
        if own.weights:
            yield from _weight_problems(document, own.weights, len(own.values), "value", where)
    if all(name in prompt.independent for name in template.fields):
        yield document.problem(("independent",), "all fields are independent", "list the values of one of them as targets")
    if unclear := template.misread([f"{{{name}}}" for name in template.fields]):
        yield document.problem(
            ("template",), f"the name of the field '{unclear}' contains the text between two fields", "rename the field"
        )
        return
    yield from _unclear_parts(document, prompt, template)


def _unclear_parts(document: Document, prompt: Prompt, template: Template) -> Iterator[Problem]:
    """Targets without the placeholder of an independent field, and values that would be split at another place."""
    for index, target in enumerate(prompt.targets):
        values = template.parse(target)
        if values is None:
            return  # reported with the template
        fields = list(zip(template.fields, values, strict=True))
        if missing := next((name for name, value in fields if name in prompt.independent and value != f"{{{name}}}"), None):
            yield document.problem(
                ("targets", index), f"the target {target!r} has no {{{missing}}} in the place of the independent field", f"write {{{missing}}} there"
            )  # fmt: skip
            return
    records = [template.parse(target) or () for target in prompt.targets]
    for place, (name, text) in enumerate(zip(template.fields, template.texts[1:], strict=True)):
        own = prompt.independent.get(name)
        values = own.values if own is not None else tuple(dict.fromkeys(record[place] for record in records))
        where: Location = ("independent", name, "values") if own is not None else ("targets",)
        if (
            place + 1 < len(template.fields)
            and (bad := next((value for value in values if (value + text).find(text) < len(value)), None)) is not None
        ):
            yield document.problem(where, f"the value {bad!r} of '{name}' and {text!r}, the text after it, would be split at another place",
                                   "put a text between the fields that is in no value, such as ' | '")  # fmt: skip


def _template_problems(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """An invalid template, and targets that do not fit it."""
    try:
        template = Template.of(prompt.template or "")
    except InputError as error:
        yield document.problem(("template",), str(error))
        return
    records = [template.parse(target) for target in prompt.targets]
    if misfits := [index for index, values in enumerate(records) if values is None or not all(values)]:
        others = f" (nor {'does' if len(misfits) == 2 else 'do'} {many(len(misfits) - 1, 'other target')})" if misfits[1:] else ""
        yield document.problem(
            ("targets", misfits[0]), f"the target {prompt.targets[misfits[0]]!r} does not fit the template {prompt.template!r}{others}",
            "correct the targets or the template" if others else "correct one of them",
        )  # fmt: skip
    for index, (target, values) in enumerate(zip(prompt.targets, records, strict=True)):
        if values is None or not all(values):
            continue
        if loose := next((value for value in values if value != canonical(value)), None):
            yield document.problem(("targets", index), f"the field {loose!r} of the target {target!r} starts or ends with white space",
                                   "move the space into the template")  # fmt: skip


def _format_doubts(document: Document, prompt: Prompt) -> Iterator[Problem]:
    """A request that shows a different format than the targets."""
    spelled = (example(prompt, text) for _, text in _spelled(prompt))
    texts = [(text if prompt.draws is None else prompt.draws.wrap.replace("%s", text)).strip() for text in spelled]
    braced = all(text.startswith("{") and text.endswith("}") for text in texts)
    requests = (prompt.question,) if prompt.messages else (*prompt.requests, *prompt.held_out_requests)
    silent = [text for text in requests if not re.search("{|brace|curly", _SET.sub("", text), re.IGNORECASE)]
    asks = len(silent) < len(requests)
    if texts and braced and silent:
        where: tuple[str | int, ...] = ("messages", len(prompt.messages) - 1) if prompt.messages else ("request",)
        where = (*where, prompt.requests.index(silent[0])) if silent[0] in prompt.requests[1:] else where
        yield document.problem(where, "the targets have curly braces, but the request does not ask for them",
                               "show the format in the request, like this: {answer}", severity="warning")  # fmt: skip
    loose = {text: loose_brace(text) for text in (*requests, *((prompt.system,) if prompt.system else ()))}
    if wrong := next((text for text, message in loose.items() if message), None):
        key = "messages" if prompt.messages else "system" if wrong == prompt.system else "request"
        yield document.problem(
            (key,), f"the text {_short(wrong)} {loose[wrong]}", "add the other brace or remove it", severity="warning"
        )
    elif any("{{" in text for text in requests) and not any("{{" in text for text in texts):
        yield document.problem(("request",), "the request has doubled braces", DOUBLED_BRACES, severity="warning")
    if texts and asks and not any("{" in text for text in texts):
        yield document.problem(("request",), "the request shows curly braces, but no target has any",
                               "write the targets in the format the request asks for", severity="warning")  # fmt: skip


def _likeness_doubts(document: Document, targets: Sequence[str]) -> Iterator[Problem]:
    """Targets that differ only in case, spaces and punctuation, if there are many. A sign before a digit is part of the number."""
    plain = [re.sub(r"(?![-−+.,:/]\d)[\W_]", "", target).casefold() for target in targets]
    alike = len(plain) - len({text or str(index) for index, text in enumerate(plain)})
    if alike >= 3 and alike > 0.2 * len(targets):
        yield document.problem(("targets",), f"{alike} of {len(targets)} targets differ from another only in case, spaces or punctuation",
                               "check that all are intended", severity="warning")  # fmt: skip
