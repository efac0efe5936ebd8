"""Sample files: every answer (`json`, `jsonl`) or distinct answers with their counts (`counts`, `csv`).

Knows how samples are written and read, not how they are drawn or judged.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from diffusecli.files.documents import read_document
from diffusecli.files.spreadsheets import COLUMNS, as_cell, from_cell
from diffusecli.files.text import holds_half_characters
from diffusecli.files.writing import atomic_write
from diffusecli.prompts.answer_texts import record_values
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.sample_files import FORMATS, MOST_BYTES
from diffusecli.system.errors import InputError

_CHUNK = 10_000  # answers that become text at once
MOST_COUNT = 2**53  # a count beyond it is no count
_MOST_LINE = 50_000_000  # signs
_SMALL = 50_000_000  # bytes: no line of such a file is too long


def format_of(path: Path) -> str:
    """The format that a file name asks for.

    >>> format_of(Path("a.csv")), format_of(Path("a.JSONL")), format_of(Path("a"))
    ('csv', 'jsonl', 'json')
    """
    return next((form for form, ending in FORMATS.items() if ending == path.suffix.lower()), "json")


def write_samples(
    path: Path, samples: Mapping[str, Counter[str]], form: str, seed: int, records: Mapping[str, Prompt] | None = None
) -> None:
    """Write the samples of each prompt; single answers in an order that the seed fixes. Raises `MachineError`.

    A table has a column for each field of the `records` that the answers to a prompt are; empty where an answer does not fit the template.
    """
    with atomic_write(path) as file:
        if form == "csv":
            _write_table(file, samples, records or {})
        elif form == "jsonl":
            for alias, counts in samples.items():
                head = f'{{"prompt": {_quoted(alias)}, "text": '
                for chunk in _shuffled({text: f"{head}{_quoted(text)}}}\n" for text in counts}, counts, seed):
                    file.write("".join(chunk))
        else:
            _write_mapping(file, samples, None if form == "counts" else seed)


def read_samples(path: Path) -> dict[str, Counter[str]]:
    """Prompt -> answers, counted, from a file in any of the formats; raises `InputError` when it is none of them."""
    if path.suffix.lower() == ".csv":
        rows = _read_table(path)
    elif path.suffix.lower() == ".jsonl":
        rows = _read_lines(path)
    else:
        document, problems = read_document(path, MOST_BYTES)
        if document is None:
            raise InputError.of(problems)
        if not isinstance(document.data, dict):
            raise InputError(f"{path}: must be {{prompt: [answers]}}, sample again, or say with --prompt what was answered")
        return {alias: _counted(answers, alias, path) for alias, answers in document.data.items()}
    samples: dict[str, Counter[str]] = {}
    for alias, text, count in rows:
        samples.setdefault(alias, Counter())[text] += count
    return samples


def _write_table(file: IO[str], samples: Mapping[str, Counter[str]], records: Mapping[str, Prompt]) -> None:
    table = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # or a lone \\r ends the row
    fields = list(dict.fromkeys(name for prompt in records.values() if prompt.record for name in prompt.record.fields))
    table.writerow([*COLUMNS, *(f"{name} (field)" if name in COLUMNS else name for name in fields)])
    for alias, counts in samples.items():
        prompt = records.get(alias)
        for text, count in _by_count(counts):
            values = record_values(prompt, text) if prompt else None
            found = dict(zip(prompt.record.fields, values, strict=True)) if prompt and prompt.record and values else {}
            table.writerow([as_cell(alias), as_cell(text), count, *(as_cell(found.get(name, "")) for name in fields)])


def _write_mapping(file: IO[str], samples: Mapping[str, Counter[str]], seed: int | None) -> None:
    """JSON as `json.dump(…, indent=2)` has it, a chunk at a time; distinct answers with their counts when there is no seed."""
    brackets, between = ("{}" if seed is None else "[]"), ""
    file.write("{")
    for alias, counts in samples.items():
        file.write(f"{between}\n  {_quoted(alias)}: {brackets[0]}")
        if seed is None:
            chunks: Iterator[list[str]] = iter([[f"{_quoted(text)}: {count}" for text, count in _by_count(counts)]])
        else:
            chunks = _shuffled({text: _quoted(text) for text in counts}, counts, seed)
        comma = ""
        for chunk in chunks:
            file.write(f"{comma}\n    " + ",\n    ".join(chunk))
            comma = ","
        file.write(f"\n  {brackets[1]}")
        between = ","
    file.write("\n}\n")


def _shuffled(written: Mapping[str, str], counts: Counter[str], seed: int) -> Iterator[list[str]]:
    """Every answer on its own, as it is written, a chunk at a time."""
    texts = sorted(counts)
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(texts), dtype=np.int32), [counts[t] for t in texts]))
    for start in range(0, len(order), _CHUNK):
        yield [written[texts[index]] for index in order[start : start + _CHUNK].tolist()]


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _counted(answers: Any, alias: str, path: Path) -> Counter[str]:
    if isinstance(answers, list) and all(isinstance(text, str) for text in answers):
        return Counter(answers)
    if isinstance(answers, dict) and all(is_count(count) for count in answers.values()):
        return Counter(answers)
    raise InputError(
        f"{path}: the samples of {alias} must be a list of strings, or counts by string; mend the file, or name the prompt that all its answers belong to with --prompt"
    )


def _read_table(path: Path) -> Iterator[tuple[str, str, int]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                if not is_count(count := int(row["count"])) or row["text"] is None or row["prompt"] is None:
                    raise ValueError(count)
                yield from_cell(row["prompt"]), from_cell(row["text"]), count
    except OSError as error:
        raise unreadable(path, error) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: must hold the columns {', '.join(COLUMNS)}, or say with --prompt what was answered") from error


def _read_lines(path: Path) -> Iterator[tuple[str, str, int]]:
    for place, row, count in distinct_lines(path):
        if not (isinstance(row, dict) and isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str)):
            raise InputError(f'{place}: must be {{"prompt": …, "text": …}}, sample again, or say with --prompt what was answered')
        yield row["prompt"], row["text"], count


def distinct_lines(path: Path) -> Iterator[tuple[str, Any, int]]:
    """Place (`file:line`), value and count of each different line of a JSON lines file; a million alike are read as one.

    Raises `InputError`.
    """
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            small = path.stat().st_size <= _SMALL
            for number, line in enumerate(file if small else iter(lambda: file.readline(_MOST_LINE), ""), start=1):
                if len(line) == _MOST_LINE:
                    raise InputError(f"{path}:{number}: has more than {_MOST_LINE} signs, mend the line")
                first.setdefault(line, number)
                counts[line] += 1
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    for line, count in counts.items():
        if line.strip():
            place = f"{path}:{first[line]}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{place}: is not JSON, mend the line") from error
            if "\\ud" in line.lower() and holds_half_characters(value):
                raise InputError(f"{place}: holds half of a character (a lone surrogate), mend the line")
            yield place, value, count


def unreadable(path: Path, error: OSError | UnicodeDecodeError) -> InputError:
    """The sentence for a text file that is not there or not text."""
    return InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}, check the file")


def is_count(value: Any) -> bool:
    """Whether a value from JSON counts answers."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT
