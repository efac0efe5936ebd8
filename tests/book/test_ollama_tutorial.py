"""The tutorial from an empty folder to a verdict on served answers, as it is printed, with llama.cpp's server in place of Ollama."""

import re
from contextlib import ExitStack

import pytest

from diffusecli.verbs.evaluate import evaluate
from tests import ROOT
from tests.book.test_docs_commands import arguments, blocks, statements
from tests.models.llama_cpp import served

PAGE = ROOT / "docs" / "tutorials" / "ollama.md"
OLLAMA = "http://localhost:11434"


def printed():
    """The commands of the numbered steps."""
    steps = PAGE.read_text(encoding="utf-8").partition("\n## What was tested")[0]
    return [words for block in blocks(steps) if block.language == "sh" for words in statements(block.text)]


def test_six_commands_are_enough():
    assert [" ".join(words[:2]) for words in printed()] == [
        "diffuse init-prompt", "diffuse train", "diffuse export", "ollama create", "diffuse sample", "diffuse evaluate",
    ]  # fmt: skip


@pytest.mark.model
def test_served_answers_follow_the_target(tmp_path, in_process):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    pytest.importorskip("openai", reason="the extra `openai`")
    address, said = OLLAMA, ""
    with ExitStack() as server:
        for words in printed():
            if words[0] == "ollama":
                path = tmp_path / words[words.index("-f") + 1]
                (file,) = re.findall(r"^FROM (.*)$", path.read_text(), re.MULTILINE)
                address = server.enter_context(served(path.parent / file, slots=4)).address
                continue
            done = in_process(*(word.replace(OLLAMA, address) for word in arguments(words)))
            assert done.returncode == 0, (words, done.stderr)
            said = done.stdout
    assert re.search(r"[✓✗] served.*\n +N 500 ", said), said
    (row,) = evaluate([tmp_path / "served.json"]).rows
    assert row.figures.valid > 0.97
    assert row.figures.p_value > 1e-4, "a perfect sampler fails this once in 10 000 times"
