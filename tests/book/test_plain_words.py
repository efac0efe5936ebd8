"""Words that make readers stop do not come back (rules for texts are in CONTRIBUTING.md)."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTEAD = {
    r"told": "said, shown, reported",
    r"mend(ed|s|ing)?": "fix",
    r"stands? in": "is in",
    r"nearly": "almost, close to, or a figure",
    r"anybody|nobody": "anyone, no one, or who it is",
    r"held against": "compared with",
    r"amid": "during",
    r"asked the same": "has the same request",
    r"the least (possible|loss|that)": "the lowest",
}
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "prompts/README.md", "configs/README.md", "docs")
"""What is read most. Program texts follow."""


def pages():
    found = subprocess.run(["git", "ls-files", *PAGES], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in found if name.endswith(".md")]


def in_the_way(text):
    """Line and word of each; code spans hold what programs print and are left out."""
    prose = re.sub(r"`[^`\n]*`", lambda match: " " * len(match[0]), text)
    for number, line in enumerate(prose.splitlines(), 1):
        for pattern, better in INSTEAD.items():
            if match := re.search(rf"\b(?:{pattern})\b", line, re.IGNORECASE):
                yield number, f"'{match[0]}': write {better}"


@pytest.mark.parametrize("name", pages())
def test_pages_use_plain_words(name):
    found = [f"{name}:{line}: {what}" for line, what in in_the_way((ROOT / name).read_text(encoding="utf-8"))]
    assert found == []


def test_the_check_finds_what_it_looks_for():
    assert list(in_the_way("All is well.\nWe were Told so, `nobody` reads.\n")) == [(2, "'Told': write said, shown, reported")]
