"""Escape untrusted text for Markdown: it stays one cell or one piece of code, without links."""

from __future__ import annotations

import re

from diffusecli.system.errors import printable

_MARKUP = re.compile(r"[\\|`\[\]]")


_ADDRESS = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp|www)([:.])")


_CALLS = re.compile(r"[@#](?=\w)")


def markdown_cell(text: str) -> str:
    r"""Escape untrusted text for Markdown, inside or outside a table. It stays one cell, without tags, links, images or code.

    Also disables automatic links, mentions (`@`) and issue numbers (`#`) of code hosts.

    >>> print(markdown_cell("a|b\n<i> [x](y) `c` &lt; www.a.b http://c @d #1"))
    a\|b &lt;i> \[x\](y) \`c\` &amp;lt; www\.a.b http\://c @&#8203;d #&#8203;1
    """
    line = printable(text).replace("&", "&amp;").replace("\n", " ")
    line = _MARKUP.sub(r"\\\g<0>", line).replace("<", "&lt;")
    return _CALLS.sub(r"\g<0>&#8203;", _ADDRESS.sub(r"\1\\\2", line))


def markdown_code(text: str) -> str:
    r"""Untrusted text as inline code in Markdown, with more backticks than it contains.

    >>> print(markdown_code("a"), markdown_code("`<b>"))
    `a` `` `<b> ``
    """
    line = printable(text).replace("\n", " ")
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if "`" in line or not line.strip() else f"{ticks}{line}{ticks}"
