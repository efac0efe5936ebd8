"""Answers of another model than the one asked for are found: llama.cpp ignores the name."""

import json
from pathlib import Path

import pytest

from diffusecli.models.chat import ChatSettings
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.connection import Service
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.served_names import check_name
from diffusecli.sampling.server_engine import ServerEngine
from diffusecli.sampling.settings import SamplingSettings
from tests.commands import closed_port
from tests.models.llama_cpp import served
from tests.models.test_gguf_out import write
from tests.sampling.test_llama_server import letters_model
from tests.sampling.test_server_engine import Server

pytest.importorskip("openai")

IGNORES = "the server serves base.gguf and ignores the name asked for (m)"


def warnings(models, run=""):
    notices = []
    with Server() as server:
        server.models = models
        made = ServerEngine(Service(server.url, "m"), SamplingSettings(100), notices.append, ChatSettings(), run)
        for alias in ("p.json", "q.json"):
            drawn(made, Prompt(request=alias, targets=(), alias=alias))
        return [notice.removeprefix(f"warning: {server.url}: ") for notice in notices], made.about


@pytest.mark.parametrize("models", [["m"], ["x", "m"], ["m:latest"], ["models/m"], ["/files/m"], []])
def test_a_listed_name_or_no_list_gives_no_warning(models):
    assert warnings(models)[0] == []


@pytest.mark.parametrize(
    ("models", "run", "expected"),
    [
        (["base.gguf"], "", f"{IGNORES}. The answers are those of base.gguf"),
        (["base.gguf"], "results/dice", f"{IGNORES}. The answers may not be those of results/dice"),
        (["a", "mm"], "", "m is not among the models that the server lists (a; mm). The answers may not be those of m"),
    ],
)
def test_another_name_is_reported_once(models, run, expected):
    found, about = warnings(models, run)
    assert found == [expected]
    assert about["answered_as"] == ["m"], "this server repeats the name"


def test_a_server_that_cannot_be_reached_gives_no_warning():
    with closed_port() as port:
        assert check_name(Service(f"http://127.0.0.1:{port}/v1", "m"), "figures") == ("", "")


def test_llama_cpp_with_another_model_than_the_run(trained, tmp_path, in_process):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    file = write(tmp_path / "base", letters_model(initializer_range=0.15))
    with served(file, context=256, slots=4) as server:
        address = f"{server.address}/v1"
        words = ["--engine", "openai", "--base-url", address, "--max-new-tokens", 8, "-n", 5]
        done = in_process("sample", trained.output_dir, *words, "-o", tmp_path / "tuned.json")
        said = " ".join(done.stderr.split())
        assert done.returncode == 0, said
        assert "ignores the name asked for" in said
        assert f"The answers may not be those of {trained.output_dir}" in said
        meta = json.loads((tmp_path / "tuned.meta.json").read_text())
        assert [Path(name).name for name in meta["answered_as"]] == [file.name]
        measured = ["evaluate", tmp_path / "tuned.json", "--exact", *words[:4], "--model"]
        wrong = in_process(*measured, "wrongname").stderr
        right = in_process(*measured, file.name).stderr
    assert "ignores the name asked for (wrongname). The figures are those of" in " ".join(wrong.split())
    assert "ignores" not in right
