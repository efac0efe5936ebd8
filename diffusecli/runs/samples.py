"""Sample files: every answer (`json`, `jsonl`) or distinct answers with their counts (`counts`, `csv`)."""

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
from diffusecli.prompts.answers import by_count
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.sample_files import FORMATS, MOST_BYTES
from diffusecli.system.errors import InputError, why_unreadable

_CHUNK = 10_000  # answers written at once
MOST_COUNT = 2**53  # larger counts are invalid
_MOST_LINE = 50_000_000  # characters
_SMALL = 50_000_000  # bytes: a file this small has no line that is too long


def format_of(path: Path) -> str:
    """The format of a file name.

    >>> format_of(Path("a.csv")), format_of(Path("a.JSONL")), format_of(Path("a"))
    ('csv', 'jsonl', 'json')
    """
    return next((form for form, ending in FORMATS.items() if ending == path.suffix.lower()), "json")


def write_samples(
    path: Path, samples: Mapping[str, Counter[str]], form: str, seed: int, records: Mapping[str, Prompt] | None = None
) -> None:
    """Write the samples of each prompt; single answers in an order fixed by the seed. Raises `MachineError`.

    If answers are `records`, a table has a column per field, empty for answers that do not match the template.
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
    """Prompt -> counted answers, from a file in any of the formats. Raises `InputError` for other files."""
    if path.suffix.lower() == ".csv":
        rows = _read_table(path)
    elif path.suffix.lower() == ".jsonl":
        rows = _read_lines(path)
    else:
        document, problems = read_document(path, MOST_BYTES)
        if document is None and path.is_file() and path.suffix.lower() != ".json":
            raise InputError(f"{path}: is not a file of samples. For raw answers, name their prompt with --prompt")
        if document is None:
            raise InputError.of(problems)
        if not isinstance(document.data, dict):
            raise InputError(f"{path}: must be {{prompt: [answers]}}. Sample again, or choose the prompt with --prompt")
        return {alias: _counted(answers, alias, path) for alias, answers in document.data.items()}
    samples: dict[str, Counter[str]] = {}
    for alias, text, count in rows:
        samples.setdefault(alias, Counter())[text] += count
    return samples


def _write_table(file: IO[str], samples: Mapping[str, Counter[str]], records: Mapping[str, Prompt]) -> None:
    table = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # otherwise a lone \\r ends the row
    fields = list(dict.fromkeys(name for prompt in records.values() if prompt.record for name in prompt.record.fields))
    table.writerow([*COLUMNS, *(f"{name} (field)" if name in COLUMNS else name for name in fields)])
    for alias, counts in samples.items():
        prompt = records.get(alias)
        for text, count in by_count(counts):
            values = record_values(prompt, text) if prompt else None
            found = dict(zip(prompt.record.fields, values, strict=True)) if prompt and prompt.record and values else {}
            table.writerow([as_cell(alias), as_cell(text), count, *(as_cell(found.get(name, "")) for name in fields)])


def _write_mapping(file: IO[str], samples: Mapping[str, Counter[str]], seed: int | None) -> None:
    """Write JSON like `json.dump(…, indent=2)`, in chunks; distinct answers with counts if there is no seed."""
    brackets, between = ("{}" if seed is None else "[]"), ""
    file.write("{")
    for alias, counts in samples.items():
        file.write(f"{between}\n  {_quoted(alias)}: {brackets[0]}")
        if seed is None:
            chunks: Iterator[list[str]] = iter([[f"{_quoted(text)}: {count}" for text, count in by_count(counts)]])
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
    """Every single answer as text, in chunks."""
    texts = sorted(counts)
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(texts), dtype=np.int32), [counts[t] for t in texts]))
    for start in range(0, len(order), _CHUNK):
        yield [written[texts[index]] for index in order[start : start + _CHUNK].tolist()]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _counted(answers: Any, alias: str, path: Path) -> Counter[str]:
    if isinstance(answers, list) and all(isinstance(text, str) for text in answers):
        return Counter(answers)
    if isinstance(answers, dict) and all(is_count(count) for count in answers.values()):
        return Counter(answers)
    if alias == "request" and isinstance(answers, str):
        raise InputError(f"{path}: is a prompt, not samples. Name a run or a file of samples")
    raise InputError(
        f"{path}: the samples of {alias} must be a list of strings, or counts by string. Correct the file, or choose the prompt of all its answers with --prompt"
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
        raise InputError(
            f"{path}: must have the columns {', '.join(COLUMNS)}. Add them, or choose the prompt with --prompt"
        ) from error


def _read_lines(path: Path) -> Iterator[tuple[str, str, int]]:
    for place, row, count in distinct_lines(path):
        if is_logged(row):
            raise InputError(f"{place}: is a line of lm-eval's --log_samples. Name the prompt of its answers with --prompt")
        if not (isinstance(row, dict) and isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str)):
            raise InputError(f'{place}: must be {{"prompt": …, "text": …}}. Sample again, or choose the prompt with --prompt')
        yield row["prompt"], row["text"], count


def is_logged(value: Any) -> bool:
    """Whether a JSON line is one of `lm_eval --log_samples`."""
    return isinstance(value, dict) and {"doc_id", "doc", "arguments", "resps"} <= value.keys()


def distinct_lines(path: Path) -> Iterator[tuple[str, Any, int]]:
    """Position (`file:line`), value and count of each distinct line of a JSON lines file. Equal lines are parsed once.

    Raises `InputError`.
    """
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            small = path.stat().st_size <= _SMALL
            for number, line in enumerate(file if small else iter(lambda: file.readline(_MOST_LINE), ""), start=1):
                if len(line) == _MOST_LINE:
                    raise InputError(f"{path}:{number}: has more than {_MOST_LINE} characters. Shorten the line")
                first.setdefault(line, number)
                counts[line] += 1
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    last = next(reversed(counts), "")  # a line without its end is a new one
    for line, count in counts.items():
        if line.strip():
            place = f"{path}:{first[line]}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                if line is last and _is_cut(line, error):
                    raise InputError(
                        f"{place}: the last line is cut: the file is incomplete. Copy it again, or remove the line"
                    ) from error
                raise InputError(f"{place}: invalid JSON. Correct the line") from error
            if "\\ud" in line.lower() and holds_half_characters(value):
                raise InputError(f"{place}: contains half of a character (a lone surrogate). Correct the line")
            yield place, value, count


def _is_cut(line: str, error: Exception) -> bool:
    """Whether JSON ends too early, as at the end of an incomplete file."""
    unfinished = isinstance(error, json.JSONDecodeError) and (error.pos >= len(line) or error.msg.startswith("Unterminated"))
    return unfinished and not line.endswith("\n")


def unreadable(path: Path, error: OSError | UnicodeDecodeError) -> InputError:
    """The error for a missing file or a file that is not text."""
    return InputError(f"{path}: {why_unreadable(error)}. Check the file")


def is_count(value: Any) -> bool:
    """Whether a JSON value is a valid count."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNT
