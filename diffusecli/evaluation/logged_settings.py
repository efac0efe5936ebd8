"""Settings of sampling in the files of `lm_eval --log_samples`: translated to this project's names, with a warning if they are not neutral.

Knows generation_kwargs, not answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusecli.sampling.settings import changed_from_neutral
from diffusecli.system.errors import InputError, joined

_NAMES = {"max_gen_toks": "max_new_tokens", "max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens"}
_NUMBERS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens")
_NEEDED = ("temperature", "top_k", "top_p")
"""Settings that a generation config or a server sets if the task does not."""
_REMEDY = (
    "Set do_sample: true, temperature: 1, top_k: 0 and top_p: 1 in generation_kwargs to sample from the model's own distribution"
)


def given_settings(place: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The generation_kwargs of a line. Raises `InputError` if there are none, or if a value has the wrong type."""
    request = row["arguments"].get("gen_args_0") if isinstance(row["arguments"], dict) else None
    given = request.get("arg_1") if isinstance(request, dict) else None
    if not isinstance(given, dict):
        raise InputError(f"{place}: holds log-likelihoods of choices, not answers. Use a task with `output_type: generate_until`")
    if wrong := next(
        (n for n, value in given.items() if _NAMES.get(n, n) in _NUMBERS and not isinstance(value, int | float)), None
    ):
        raise InputError(f"{place}: {wrong} of generation_kwargs is {given[wrong]!r}. It must be a number")
    if not isinstance(until := given.get("until") or [], str | list):
        raise InputError(f"{place}: until of generation_kwargs is {until!r}. It must be a text or a list of texts")
    return given


def translated(given: Mapping[str, Any]) -> dict[str, Any]:
    """Generation_kwargs in this project's names.

    >>> translated({"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1, "max_gen_toks": 8, "until": "."})
    {'temperature': 1.0, 'top_k': 0, 'top_p': 1, 'max_new_tokens': 8, 'stop': ['.']}
    >>> translated({}), translated({"do_sample": True, "temperature": 1})
    ({'temperature': 0.0, 'stop': []}, {'temperature': 1, 'stop': [], 'left_open': ['top_k', 'top_p']})
    """
    found = {_NAMES.get(str(name), str(name)): value for name, value in given.items() if name not in ("do_sample", "until")}
    if _is_greedy(given):
        found["temperature"] = 0.0  # whatever the temperature
    until = given.get("until") or []
    found["stop"] = [until] if isinstance(until, str) else [str(text) for text in until]
    left = [] if found.get("temperature") == 0 else [name for name in _NEEDED if name not in found]
    return {**found, "left_open": left} if left else found


def why_bent(given: Mapping[str, Any]) -> str:
    """Why the answers are not draws from the model's own distribution, or may not be; "" if they are.

    >>> why_bent({}).split(". ")[0]
    'do_sample is not set: lm-eval decodes greedily'
    >>> why_bent({"temperature": 0.5, "top_k": 0, "top_p": 1}).split(". ")[:2]
    ['temperature is 0.5', "These answers are not from the model's own distribution"]
    >>> why_bent({"do_sample": True, "temperature": 1, "top_k": 0, "top_p": 1})
    ''
    """
    settings = translated(given)
    if settings.get("temperature") == 0:
        state = "false" if "do_sample" in given else "not set"
        cause = f"do_sample is {state}" if _is_greedy(given) else "temperature is 0"
        return f"{cause}: lm-eval decodes greedily. These answers are not draws from the model's own distribution. {_REMEDY}"
    changed = [f"{name} is {value:g}" for name, value in changed_from_neutral(settings).items()]
    left = settings.get("left_open", [])
    if left:
        changed.append(f"the task does not set {joined(left)}, so the model's generation config or the server decides")
    if not changed:
        return ""
    return f"{'; '.join(changed)}. These answers {'may not be' if len(changed) == bool(left) else 'are not'} from the model's own distribution. {_REMEDY}"


def _is_greedy(given: Mapping[str, Any]) -> bool:
    """Whether lm-eval decodes greedily: without do_sample it samples only if there is a temperature."""
    return given.get("do_sample", "temperature" in given) is False
