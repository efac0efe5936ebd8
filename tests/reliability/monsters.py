"""Files made to hurt, put to the installed command: how long it takes to say no (or yes), and what it holds at the peak."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import Done, measured
from tests.commands import HANG
from tests.reliability.junk import CONFIG, ITERATION, PROMPT

GIGABYTE = 1_000_000_000
KEYS = 1_000_000


@dataclass(frozen=True)
class Monster:
    """A file and the command that reads it."""

    name: str
    file: str
    write: Callable[[Path], object]
    words: tuple[str, ...]


def line_of(size: int, before: str = "", after: str = "") -> Callable[[Path], object]:
    """Writes one line of so many bytes, a part at a time."""

    def write(path: Path) -> None:
        with path.open("w") as file:
            file.write(before)
            for _ in range(size // 1_000_000):
                file.write("a" * 1_000_000)
            file.write(after)

    return write


def keys(number: int, form: str = "json") -> Callable[[Path], object]:
    """Writes a mapping of so many keys."""

    def write(path: Path) -> None:
        with path.open("w") as file:
            if form == "yaml":
                file.writelines(f"key{i}: {i}\n" for i in range(number))
            else:
                file.write("{" + ",".join(f'"key{i}":{i}' for i in range(number)) + "}" + ("\n" if form == "jsonl" else ""))

    return write


def monsters(size: int = GIGABYTE, number: int = KEYS) -> Iterator[Monster]:
    """For each kind of file a line of `size` bytes and a mapping of `number` keys."""
    readers: dict[str, tuple[str, tuple[str, ...]]] = {
        "prompt": ("m.json", ("validate", "m.json")),
        "config": ("m.yaml", ("validate", "m.yaml")),
        "manifest": ("run/run.json", ("evaluate", "run")),
        "metrics": ("run/metrics.jsonl", ("evaluate", "run", "--html", "r.html")),
        "samples .json": ("gen.json", ("evaluate", "gen.json", "--prompts", "p.json")),
        "samples .jsonl": ("gen.jsonl", ("evaluate", "gen.jsonl", "--prompts", "p.json")),
        "samples .csv": ("gen.csv", ("evaluate", "gen.csv", "--prompts", "p.json")),
        "answers .txt": ("m.txt", ("evaluate", "m.txt", "--prompt", "p.json")),
        "answers .json": ("m.json", ("evaluate", "m.json", "--prompt", "p.json")),
        "table .csv": ("m.csv", ("init-prompt", "--from", "m.csv")),
        "table .jsonl": ("m.jsonl", ("init-prompt", "--from", "m.jsonl")),
        "table .txt": ("m.txt", ("init-prompt", "--from", "m.txt")),
        "chat template": ("m.jinja", ("validate", "t.yaml")),
        "adapter_config.json": ("run/adapter_config.json", ("sample", "--adapter", "run", "--request", "x")),
    }
    for name, (file, words) in readers.items():
        ending = file.rpartition(".")[2]
        quoted = ('"', '"') if ending in ("json", "jsonl") else ("", "")
        yield Monster(f"{name}, one line of {size / 1e6:g} MB", file, line_of(size, *quoted), words)
        if ending in ("json", "jsonl", "yaml"):
            yield Monster(f"{name}, {number} keys", file, keys(number, ending), words)


def put(monster: Monster, folder: Path) -> None:
    """Write it, and what its command reads beside it."""
    (folder / "run").mkdir(exist_ok=True)
    for name, value in {
        "p.json": PROMPT,
        "run/run.json": {},
        "run/gen.lora.json": {"p.json": ["{heads}"] * 9},
        "run/metrics.jsonl": ITERATION,
    }.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "t.yaml").write_text(json.dumps({**CONFIG, "load_model": False, "chat_template": "m.jinja"}))
    monster.write(folder / monster.file)


def meet(monster: Monster, folder: Path) -> Done:
    """Write it, run the command, remove it."""
    put(monster, folder)
    met = measured(folder, *monster.words, timeout=HANG)
    (folder / monster.file).unlink()
    return met


def main() -> None:
    """A row for each; exit code 1 when one ends in another way than with a sentence or a result."""
    failed = False
    print("| file | seconds | MB at the peak | exit code | said |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="monsters.") as folder:
        for monster in monsters():
            met = meet(monster, Path(folder))
            failed |= met.code not in (0, 2, 3) or "Traceback" in met.told
            said = next((line for line in met.told.splitlines() if line), "")[:110]
            print(f"| {monster.name} | {met.seconds:.1f} | {met.megabytes:.0f} | {met.code} | {said} |", flush=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
