"""What tests share: a tiny random model in a folder, the built-in model, and the installed command."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.matrix import Matrix

HANG = 3600  # seconds: no test waits so long unless something hangs
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # a property holds however slow the machine is
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def pytest_addoption(parser):
    parser.addoption("--write-matrix", action="store_true", help="write what was tested on which model into docs/models.md")


def pytest_configure(config):
    config.pluginmanager.register(Matrix(config))


def byte_tokenizer(merges=()):
    """One token per byte (and per merge of two), ChatML turns: no file, no download."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIALS, *alphabet, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIALS)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    return tokenizer


def tiny_llama(vocabulary=259, seed=0, **more):
    """A random Llama small enough to train in milliseconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 1024, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
        "initializer_range": 0.5, "tie_word_embeddings": True,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**settings, **more})).eval()


IN_TURN = """
import json, sys
from typer.testing import CliRunner
from diffusecli import hub
from diffusecli.cli import app
hub._PATIENCE = float(sys.argv[2])
looked_up = []
sys.addaudithook(lambda event, told: looked_up.append(told[0]) if event == "socket.getaddrinfo" else None)
for words in json.loads(sys.argv[1]):
    looked_up.clear()
    done = CliRunner().invoke(app, words)
    uncaught = "" if isinstance(done.exception, SystemExit | None) else repr(done.exception)
    print(json.dumps([done.exit_code, done.stderr, uncaught, list(map(str, looked_up))]))
"""


def in_turn(before, commands, cwd, looked_up=None, **environment):
    """Exit code and messages of each command, all in one process that `before` starts; no terminal, one thread, no hub.

    The hosts whose addresses each command asked for are added to `looked_up`.
    """
    patient = dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), str(HANG))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **patient, **environment}
    done = subprocess.run(
        [*before, sys.executable, "-c", IN_TURN, json.dumps([[str(word) for word in words] for words in commands]), str(HANG)], cwd=cwd,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=HANG,
        env={name: value for name, value in env.items() if value},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(commands), done.stderr
    assert [uncaught for _, _, uncaught, _ in found if uncaught] == []
    if looked_up is not None:
        looked_up += [hosts for *_, hosts in found]
    return [(code, told) for code, told, *_ in found]


@contextmanager
def closed_port():
    """A port of this machine that nobody listens at, nor can while inside: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def on_a_free_port(start):
    """What `start(port)` returns, on another port where somebody took the first meanwhile; `start` returns None then."""
    for _ in range(20):
        with closed_port() as port:
            pass
        if (started := start(port)) is not None:
            return started
    raise AssertionError("every port is taken")


@pytest.fixture(autouse=True)
def patient_git(monkeypatch):
    """A checkout is asked for its commit with as much time as it takes."""
    monkeypatch.setattr("diffusecli.checkout._PATIENCE", HANG)


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
    from diffusecli.models import load_model

    return load_model("smollm2-135m-instruct", device="cpu", notice=print)


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
    from diffusecli import cli

    monkeypatch.setenv("COLUMNS", "80")

    def run(*words, cwd=tmp_path, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["diffuse", *map(str, words)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # an interrupted command puts it aside for good
        streams = sys.stdout, sys.stderr
        with chdir(cwd), pytest.raises(SystemExit) as stopped:
            cli.main()
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
    from diffusecli.config import Config
    from diffusecli.train import train

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
