"""The command, started by a launcher, with trouble at one moment in one of the processes: `python -m tests.training.launched WORD… train CONFIG`.

TROUBLE in the environment says what: `interrupt PLACE NUMBER` sends SIGINT to the launcher at the NUMBER-th call of PLACE in the first
process, which goes on only when the signal has come back; `fail PLACE RANK ERROR` raises there in the process RANK.
ANSWERS says how many are drawn for each prompt after training.
"""

import importlib
import os
import signal
import sys
import time
from dataclasses import replace

from diffusecli.system import errors
from diffusecli.system.interrupts import Interrupts
from tests.commands import become_command

PLACES = {
    "step": "diffusecli.training.loop._step", "draw": "diffusecli.sampling.counting.CountingSampler.draw", "read": "diffusecli.verbs.train.read_inputs",
    "load": "diffusecli.verbs.train.load_model", "write": "diffusecli.verbs.train.save_run", "tell": "diffusecli.training.loop.record_iteration",
}  # fmt: skip


def wrap(place, before):
    """Call `before` ahead of every call of a function or method."""
    module, _, name = PLACES[place].rpartition(".")
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError:
        holder = getattr(importlib.import_module(module.rpartition(".")[0]), module.rpartition(".")[2])
    whole = getattr(holder, name)

    def wrapped(*given, **more):
        before()
        return whole(*given, **more)

    setattr(holder, name, wrapped)


def interrupt(place, number):
    heard, calls = [], iter(range(1_000_000))
    hear = Interrupts._on_signal
    Interrupts._on_signal = lambda self, *given: (heard.append(1), hear(self, *given))

    def before():
        if os.environ["RANK"] == "0" and next(calls) == int(number):
            os.kill(os.getppid(), signal.SIGINT)
            while not heard:  # or until KeyboardInterrupt is raised here
                time.sleep(0.01)

    wrap(place, before)
    if place == "draw":  # prompts one after the other, or there is one call for all
        importlib.import_module("diffusecli.sampling.local_engine")._PROMPTS_TOGETHER = 1


def fail(place, rank, kind):
    def before():
        if os.environ["RANK"] == rank:
            raise {**vars(errors), "ValueError": ValueError}[kind](f"trouble in process {rank}")

    wrap(place, before)


def launched():
    """The command of `sys.argv`, with what the environment asks for."""
    words = os.environ.get("TROUBLE", "").split()
    if words:
        {"interrupt": interrupt, "fail": fail}[words[0]](*words[1:])
    if answers := os.environ.get("ANSWERS"):
        training = importlib.import_module("diffusecli.verbs.train")
        training.GENERATIONS = replace(training.GENERATIONS, n_generations=int(answers))
    sys.argv[0] = "diffuse"
    from diffusecli.__main__ import main

    main()


def begin(words, environment, said, told):
    """The same in a process that was forked; what it says goes into two files."""
    os.environ.update(environment)
    become_command(said, told)
    sys.argv = ["diffuse", *words]
    launched()


if __name__ == "__main__":
    launched()
