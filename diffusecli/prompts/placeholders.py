"""Placeholders of requests, `{region}`, which the values of a group fill. Knows texts only."""

from __future__ import annotations

import re
from collections.abc import Mapping

from diffusecli.system.errors import InputError, did_you_mean, sentence


def filled(template: str, fields: Mapping[str, str], option: str) -> str:
    """`{name}` replaced by its value, `{{` and `}}` by single braces. Without fields the text is unchanged."""
    if not fields:
        return template

    def value(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None:
            raise InputError(f"{option} {template!r}: has a brace without its counterpart. Close it, or write it twice as text")
        if match[1] not in fields:
            raise InputError(
                f"{option}: no column '{match[1]}' among the groups. {sentence(did_you_mean(match[1], list(fields)))} (write a brace of the text twice)"
            )
        return fields[match[1]]

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}|[{}]", value, template)
