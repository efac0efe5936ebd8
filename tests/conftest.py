"""What tests share: a tiny random model in a folder, the built-in model, and the installed command."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.book.matrix import Matrix
from tests.commands import HANG
from tests.tiny import byte_tokenizer, tiny_llama

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # a property holds however slow the machine is
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--write-matrix", action="store_true", help="write what was tested on which model into docs/models.md")


def pytest_configure(config):
    config.pluginmanager.register(Matrix(config))


@pytest.fixture(autouse=True)
def patient_git(monkeypatch):
    """A checkout is asked for its commit with as much time as it takes."""
    monkeypatch.setattr("diffusecli.system.checkout._TIMEOUT", HANG)


@pytest.fixture(autouse=True)
def one_thread_for_tiny_models(request):
    """Threads that wait for each other cost more than they compute on a model of 16 000 weights."""
    import torch

    if request.node.get_closest_marker("model") is None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)
    else:
        yield


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(request, tiny_cache, monkeypatch):
    """Only tests of the built-in model use the user's cache."""
    if request.node.get_closest_marker("model") is None:
        monkeypatch.setenv("DIFFUSE_CACHE", str(tiny_cache))


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A whole model folder: weights, tokenizer, and a generation config that tries to bend the distribution."""
    folder = tmp_path_factory.mktemp("tiny-model")
    model = tiny_llama()
    model.generation_config.update(do_sample=True, temperature=0.3, top_k=2, top_p=0.5, repetition_penalty=1.7)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def builtin_model():
    """The built-in model, loaded once; fetched first if it is not cached."""
    from diffusecli.models.loading import load_model
    from diffusecli.models.source import ModelSource

    return load_model(ModelSource("smollm2-135m-instruct", device="cpu"), print)


@pytest.fixture
def prompt_file(tmp_path):
    """Write a prompt file and get its path: `prompt_file(targets=[...], ...)`."""

    def write(name="prompt.json", **fields):
        path = tmp_path / name
        path.write_text(json.dumps({"request": "Say a letter.", "targets": ["{a}", "{b}"], **fields}))
        return path

    return write


@pytest.fixture
def diffuse(tmp_path, request):
    """Run the installed command in a fresh folder and get what it did."""

    threads = {} if request.node.get_closest_marker("model") else {"OMP_NUM_THREADS": "1"}

    def run(*words, cwd=tmp_path, **environment):
        command = Path(sys.executable).with_name("diffuse")
        return subprocess.run(
            [command, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=HANG, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "80", **threads, **environment},
        )  # fmt: skip

    return run


@pytest.fixture
def in_process(tmp_path, monkeypatch, capfd):
    """As `diffuse`, but in this process: for what a command does, not for how it starts, ends and is seen from outside."""
    from diffusecli.cli.app import main

    monkeypatch.setenv("COLUMNS", "80")

    def run(*words, cwd=tmp_path, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["diffuse", *map(str, words)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # an interrupted command puts it aside for good
        streams = sys.stdout, sys.stderr
        with chdir(cwd), pytest.raises(SystemExit) as stopped:
            main()
        sys.stdout, sys.stderr = streams
        return subprocess.CompletedProcess(words, stopped.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """Where `trained` trains when it is asked for the first time."""
    return tmp_path_factory.mktemp("first")


@pytest.fixture
def trained(tiny_model_folder, prompt_file, first_run, tmp_path):
    """A run of one iteration on the tiny model, in tmp_path/results/r1: a copy of the first, the paths in it changed."""
    from diffusecli.prompts.config import Config
    from diffusecli.verbs.train import train

    def config(place):
        return Config.model_validate({
            "model": str(tiny_model_folder), "train_prompts": [str(place / "p.json")], "test_prompts": [str(place / "p.json")],
            "alg_config": {"n_iters": 1}, "output_dir": str(place / "results" / "r1"), "device": "cpu", "generate": False, "seed": 7,
        })  # fmt: skip

    prompt = prompt_file("p.json")
    if not (first_run / "results").exists():
        shutil.copy(prompt, first_run)
        train(config(first_run), report=lambda _: None, notice=lambda _: None)
    run = shutil.copytree(first_run / "results" / "r1", tmp_path / "results" / "r1", copy_function=shutil.copy)
    for path in run.iterdir():
        if path.suffix != ".safetensors":
            path.write_text(path.read_text().replace(str(first_run), str(tmp_path)))
    return config(tmp_path)
