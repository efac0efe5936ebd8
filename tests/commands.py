"""Commands in one process or another, and ports for the servers that they ask."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

HANG = 1200  # seconds: no test waits so long unless something hangs; below faulthandler_timeout of pyproject.toml

_LOADED_BEFORE = [
    "torch", "transformers", "peft", "pandas", "scipy.stats", "transformers.models.llama.modeling_llama", "accelerate",
    "diffusecli.verbs.train", "diffusecli.verbs.sample", "diffusecli.verbs.evaluate", "diffusecli.verbs.export", "diffusecli.report.html",
    "openai",
]  # fmt: skip


def forkserver():
    """Starts processes that have loaded the libraries, so that one costs its work and not its start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED_BEFORE)
    return context


def become_command(said, told):
    """In a process of the forkserver: signals, one thread, files that stdout and stderr go into."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Path(said).open("wb") as out, Path(told).open("wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    import torch

    torch.set_num_threads(1)


IN_TURN = """
import json, sys
from typer.testing import CliRunner
from diffusecli.cli.app import app
from diffusecli.models import hub
hub._TIMEOUT = float(sys.argv[2])
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
