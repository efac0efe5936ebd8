"""Kills the tool at random moments and looks at what it leaves: `python -m tests.reliability.kills [MOMENTS [SEED]]`.

Commands run in processes forked from one that has loaded the libraries, so that a moment costs its work and not the
start. After each kill every file must be whole or absent; after a few the same command is left alone, and must end
with what an undisturbed one leaves, nothing beside it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing.process
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import yaml
from safetensors import safe_open

from tests.commands import HANG, become_command, forkserver

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TINY = "smollm2-135m-instruct"
_KILLS_A_FOLDER = 4
_ANSWERS = 100  # drawn for each prompt after training, in place of a thousand, which would take most of the time


@dataclass(frozen=True)
class Activity:
    """A command, the folder it needs, and what its results are once it is done."""

    words: tuple[str, ...]
    prepare: Callable[[Path], None]
    results: Callable[[Path], Mapping[str, object]]
    finished: str = "\0"  # what the command says when it is started again after the end
    env: Mapping[str, str] = field(default_factory=dict)
    tiny_builtin: Path | None = None  # a wheel that stands in for the built-in model's


@dataclass
class Tally:
    """What was seen."""

    moments: Counter[str] = field(default_factory=Counter)  # by signal, those that met a running process
    scratch: int = 0  # moments at which something half-written lay there
    resumed: int = 0  # folders whose command was left alone in the end
    faults: list[str] = field(default_factory=list)


def _command(activity: Activity, folder: Path, told: Path, begun: Event) -> None:
    """In the child: become the installed command."""
    os.setsid()
    os.chdir(folder)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **activity.env}
    become_command(Path(os.devnull), told)
    training = importlib.import_module("diffusecli.verbs.train")
    training.GENERATIONS = replace(training.GENERATIONS, n_generations=_ANSWERS)
    if activity.tiny_builtin is not None:
        from diffusecli.models import builtin

        builtin.BUILTIN_MODELS[TINY] = tiny_builtin(activity.tiny_builtin)
    sys.argv = ["diffuse", *activity.words]
    from diffusecli.__main__ import main

    begun.set()
    main()


class Killer:
    """Starts commands, kills them, looks. Another trouble than a signal is another `make_trouble`."""

    def __init__(self, seed: int, logs: Path) -> None:
        """What commands say goes into a file in `logs`."""
        self.moment = random.Random(seed)
        self._told = logs / "told"
        self._context = forkserver()

    def start(self, activity: Activity, folder: Path) -> multiprocessing.process.BaseProcess:
        """Returns when the command begins."""
        begun = self._context.Event()
        process = self._context.Process(target=_command, args=(activity, folder, self._told, begun), daemon=True)
        process.start()
        while not begun.wait(1):
            assert process.is_alive(), f"the child ends before it begins: {process.exitcode}"
        return process

    @property
    def told(self) -> str:
        """What the last command said."""
        return self._told.read_text(errors="replace")

    def left_alone(self, activity: Activity, folder: Path) -> tuple[int, str, float]:
        """Exit code, what it said, seconds."""
        started = time.perf_counter()
        process = self.start(activity, folder)
        process.join(HANG)
        if process.is_alive():
            process.kill()
            return -1, "hangs", HANG
        return process.exitcode, self.told, time.perf_counter() - started

    def attack(self, name: str, activity: Activity, moments: int, tally: Tally, place: Path) -> None:
        """So many kills of one command that is running, its folder made anew every few; those that come too late do not count."""
        with tempfile.TemporaryDirectory(dir=place) as beside:
            folder = _fresh(activity, Path(beside))
            code, told, seconds = self.left_alone(activity, folder)
            assert code == 0, f"{name} does not even run alone: {told}"
            expected = activity.results(folder)
        while tally.moments.total() < moments:
            with tempfile.TemporaryDirectory(dir=place) as beside:
                folder = _fresh(activity, Path(beside))
                for _ in range(min(_KILLS_A_FOLDER, moments)):
                    met = tally.moments.total()
                    self.make_trouble(name, activity, folder, seconds, tally)
                    if tally.moments.total() == met:  # it came too late: the machine may be faster than it was
                        seconds /= 2
                code, told, _ = self.left_alone(activity, folder)
                tally.resumed += 1
                tally.faults += [f"{name}: {fault}" for fault in _after(activity, folder, code, told, expected)]

    def start_and_wait(self, activity: Activity, folder: Path, seconds: float) -> multiprocessing.process.BaseProcess:
        """Returns at a random moment of the command, half of the time one at which something is being written."""
        before = _hidden(folder)
        process = self.start(activity, folder)
        if self.moment.random() < 0.5:
            process.join(self.moment.uniform(0, seconds))
        else:  # while something is being written
            wanted, seen, until = self.moment.randint(1, 6), set(before), time.perf_counter() + seconds
            while process.is_alive() and wanted and time.perf_counter() < until:
                fresh = _hidden(folder) - seen
                seen |= fresh
                wanted -= bool(fresh)
            time.sleep(self.moment.uniform(0, 0.005))
        return process

    def make_trouble(self, name: str, activity: Activity, folder: Path, seconds: float, tally: Tally) -> None:
        """One kill."""
        number = self.moment.choice(SIGNALS)
        process = self.start_and_wait(activity, folder, seconds)
        if process.is_alive():
            os.kill(process.pid, number)
            process.join(HANG)
            if process.is_alive():
                tally.faults.append(f"{name}: does not end on {number.name}")
                process.kill()
                process.join()
            tally.moments[number.name] += 1
            tally.scratch += bool(_hidden(folder))
        told = self.told
        if number != signal.SIGKILL and process.exitcode not in (0, 130) and activity.finished not in told:
            tally.faults.append(f"{name}: ends with {process.exitcode} on {number.name}: {told[-500:]}")
        tally.faults += [f"{name}: on {number.name}: {fault}" for fault in [*tracebacks(told), *halves(folder)]]


def tracebacks(told: str) -> list[str]:
    """What a user should never see."""
    return [told[-800:]] if "Traceback" in told or "Exception ignored" in told else []


def _fresh(activity: Activity, beside: Path) -> Path:
    folder = beside / "here"
    folder.mkdir()
    activity.prepare(folder)
    return folder


def _after(activity: Activity, folder: Path, code: int, told: str, expected: Mapping[str, object]) -> list[str]:
    """What is wrong with the folder of a command that was left alone in the end."""
    if code != 0 and activity.finished not in told:
        return [f"does not go on: exit code {code}: {told[-500:]}"]
    found = activity.results(folder)
    faults = [f"{key} is not that of the undisturbed command" for key in expected if found.get(key) != expected[key]]
    return [*faults, *halves(folder), *(f"{left} was left behind" for left in sorted(_hidden(folder)))]


def _hidden(folder: Path) -> set[str]:
    """Scratch files, scratch folders and locks; that of the built-in model stays for good."""
    return {
        os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118 (folders may vanish meanwhile: os.walk does not mind)
        for parent, folders, files in os.walk(folder) for name in [*folders, *files]
        if name.startswith(".") and name != f".{TINY}.lock"
    }  # fmt: skip


def halves(folder: Path) -> list[str]:
    """Files under their own names that are not whole."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            _read_whole(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)} is not whole: {type(error).__name__} {error}")
    return found


def _read_whole(path: Path) -> None:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                file.get_tensor(key)
        return
    if path.suffix not in (".json", ".jsonl", ".yaml", ".html", ".md", ".jinja"):
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".jsonl":
        assert text.endswith("\n") or not text, "the last line is cut off"
        [json.loads(line) for line in text.splitlines()]
    elif path.suffix == ".yaml":
        yaml.safe_load(text)
    elif path.suffix == ".html":
        assert text.rstrip().endswith("</html>")
    else:
        assert text.strip()


# what is killed


def tiny_builtin(wheel: Path) -> object:
    """The built-in model's entry for the wheel that stands in for it."""
    from diffusecli.models.builtin import BuiltinModel

    name, version = wheel.name.split("-")[:2]
    with zipfile.ZipFile(wheel) as archive:
        member = archive.read("model.gguf")
    digests = (hashlib.sha256(content).hexdigest() for content in (wheel.read_bytes(), member))
    return BuiltinModel(name.replace("_", "-"), version, next(digests), "model.gguf", next(digests), 1, 10)


def _write_wheel(folder: Path) -> Path:
    from tests.models.test_ggufs import write_gguf
    from tests.tiny import tiny_llama

    write_gguf(folder / "model.gguf", tiny_llama(vocabulary=260))
    wheel = folder / "tiny_stand_in-1.0-py3-none-any.whl"
    told = "tiny_stand_in-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "model.gguf", "model.gguf")
        archive.writestr(f"{told}/METADATA", "Metadata-Version: 2.1\nName: tiny-stand-in\nVersion: 1.0\n")
        archive.writestr(f"{told}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{told}/RECORD", "")
    return wheel


def activities(place: Path, base_url: str, logs: Path) -> dict[str, Activity]:
    """Everything that writes: by name. A trained run is made once and copied."""
    from tests.tiny import byte_tokenizer, tiny_llama

    model = place / "model"
    tiny_llama(hidden_size=64).save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    wheel = _write_wheel(place)
    shared = {"DIFFUSE_CACHE": str(place / "cache")}
    training = partial(_prepare_training, model=model)
    plain = Activity(("train", "cfg.yaml"), training, _trained, "already contains a finished run", shared)
    template = place / "template"
    template.mkdir()
    training(template)
    code, told, _ = Killer(0, logs).left_alone(plain, template)
    assert code == 0, told
    copied = partial(_copy, template)
    sampled = Activity(("sample", "results/run", "-n", "300", "--max-new-tokens", "12"), copied, _sampled, env=shared)
    return {
        "train": plain,
        "checkpoints": replace(plain, words=("train", "cfg.yaml", "--set", "save_every=1", "--set", "generate=false")),
        "sample": sampled,
        "sample from a server": replace(
            sampled, words=("sample", "results/run", "-n", "200", "--engine", "openai", "--base-url", base_url), results=_served
        ),
        "evaluate": Activity(
            ("evaluate", "results", "--html", "report.html", "--plots", "plots"), copied, partial(_same_bytes, patterns=("*.html", "plots/*.svg")),
            env=shared,
        ),
        "export": Activity(("export", "results/run", "-o", "merged"), copied,
                           partial(_same_bytes, patterns=("merged/*.safetensors", "merged/*.jinja", "merged/tokenizer*")),
                           "already holds an exported model", shared),
        "fetch": Activity(
            ("sample", "--model", TINY, "--request", "x", "-n", "5", "--max-new-tokens", "3"), _nothing,
            partial(_same_bytes, patterns=("cache/models/*/*",)),
            env={"DIFFUSE_CACHE": "cache", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place), "PIP_CONFIG_FILE": os.devnull}, tiny_builtin=wheel,
        ),
    }  # fmt: skip


def _prepare_training(folder: Path, model: Path) -> None:
    prompts = ["p0.json", "p1.json"]
    for path in prompts:
        (folder / path).write_text(json.dumps({"request": f"Say {path}.", "targets": ["{a}", "{b}", "{cd}"]}))
    config = {
        "model": str(model), "train_prompts": prompts, "test_prompts": prompts, "output_dir": "results/run", "save_every": 3,
        "alg_config": {"n_iters": 9, "learning_rate": 0.01}, "lora": {"dropout": 0.1}, "device": "cpu",
    }  # fmt: skip
    (folder / "cfg.yaml").write_text(yaml.safe_dump(config))


def _nothing(folder: Path) -> None:
    """An empty folder is all that is needed."""


def _copy(template: Path, folder: Path) -> None:
    import shutil

    shutil.copytree(template, folder, dirs_exist_ok=True)


def _trained(folder: Path) -> dict[str, object]:
    run = folder / "results" / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in line.items() if k not in ("seconds", "memory_mb")} for line in lines]
    samples = (run / "gen.json").read_bytes() if (run / "gen.json").is_file() else b""
    return {"adapter": (run / "adapter_model.safetensors").read_bytes(), "metrics": figures, "samples": samples,
            "checkpoints": [p.name for p in run.glob("checkpoint-*")]}  # fmt: skip


def _sampled(folder: Path) -> dict[str, object]:
    return {"samples": (folder / "results" / "run" / "gen.lora.json").read_bytes()}


def _served(folder: Path) -> dict[str, object]:
    """Servers draw anew after an interruption: as many as asked for, no more."""
    samples = json.loads((folder / "results" / "run" / "gen.lora.json").read_text())
    return {"numbers": {alias: len(texts) for alias, texts in samples.items()}}


def _same_bytes(folder: Path, patterns: tuple[str, ...]) -> dict[str, object]:
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in patterns for p in sorted(folder.glob(pattern))}


def run(moments: int, seed: int, say: Callable[[str], None], trouble: type[Killer] = Killer, disk: Path | None = None) -> Tally:
    """Share the moments out to all activities, which write below `disk`."""
    from tests.sampling.test_server_engine import Server

    whole = Tally()
    with tempfile.TemporaryDirectory(dir=disk) as scratch, tempfile.TemporaryDirectory() as logs, Server(delay=0.01) as server:
        killer = trouble(seed, Path(logs))
        every = activities(Path(scratch), server.url, Path(logs))
        for turn, (name, activity) in enumerate(every.items()):
            started, tally = time.perf_counter(), Tally()
            killer.attack(name, activity, moments // len(every) + (turn < moments % len(every)), tally, Path(scratch))
            say(f"{name:22} {tally.moments.total():4} met it ({dict(tally.moments)}), {tally.scratch} amid a write, "
                f"{tally.resumed} gone on, {len(tally.faults)} faults, {time.perf_counter() - started:.0f} s")  # fmt: skip
            whole.moments += tally.moments
            whole.scratch += tally.scratch
            whole.resumed += tally.resumed
            whole.faults += tally.faults
            for fault in tally.faults:
                say(f"- {fault}")
    return whole


def main(trouble: type[Killer] = Killer, disk: Path | None = None) -> None:
    """`[MOMENTS [SEED]]`; ends with 1 when anything was wrong."""
    words = [*sys.argv[1:], *["240", str(random.randrange(10**6))][len(sys.argv) - 1 :]]
    asked, seed = map(int, words)
    print(f"seed {seed}")
    seen = run(asked, seed, partial(print, flush=True), trouble, disk)
    print(f"{seen.moments.total()} moments, {seen.scratch} amid a write, {seen.resumed} gone on; {len(seen.faults)} faults")
    sys.exit(bool(seen.faults))


if __name__ == "__main__":
    main()
