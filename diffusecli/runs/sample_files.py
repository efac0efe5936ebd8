"""Names of sample files, their metadata and journals."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusecli.files.documents import read_json_mapping

MODES = ("untuned", "lora")
MEANT_MODES = {"tuned": "lora", "trained": "lora", "adapter": "lora", "base": "untuned", "untrained": "untuned"}
"""Other words for the modes. Tables call the tuned model `tuned`."""
ASK_METHODS = ("direct", "verbalized", "string-seed", "seeded", "rejection")
"""Prompt-only methods of `diffuse sample --ask`; `sampling/ask_methods.py` has their wordings."""
MOST_BYTES = 2_000_000_000  # of a sample file; use counts for more


def sampler_name(mode: str, ask: str | None) -> str:
    """The name of a sampler in tables: the mode, or the method that asked the model.

    >>> sampler_name("lora", None), sampler_name("untuned", "direct"), sampler_name("lora", "direct")
    ('lora', 'ask direct', 'lora ask direct')
    """
    if ask is None:
        return mode
    return f"ask {ask}" if mode == "untuned" else f"{mode} ask {ask}"


ASKED = tuple(sampler_name(mode, ask) for mode in MODES for ask in ASK_METHODS)
"""Names of samplers that were asked by a method."""
BASELINES = ("untuned", *ASKED)
"""Names of samplers that a tuned model is compared with."""


FORMATS = {"json": ".json", "jsonl": ".jsonl", "counts": ".json", "csv": ".csv"}
"""Format of samples -> file extension."""


SAMPLE_ENDINGS = tuple(dict.fromkeys(FORMATS.values()))


def series(first: Path) -> Iterator[Path]:
    """The names of a sampler's files: the first, then numbered ones for other prompts.

    >>> [path.name for path in itertools.islice(series(Path("gen.lora.json")), 3)]
    ['gen.lora.json', 'gen.lora.2.json', 'gen.lora.3.json']
    """
    yield first
    for number in itertools.count(2):
        yield first.with_name(f"{first.stem}.{number}{first.suffix}")


def existing(first: Path) -> list[Path]:
    """The files of a series that exist."""
    return [path for path in sorted(first.parent.glob(f"{glob.escape(first.stem)}*")) if in_series(first, path) and path.is_file()]


def in_series(first: Path, path: Path) -> bool:
    """Whether it is one of these names.

    >>> first = Path("gen.lora.json")
    >>> [in_series(first, Path(name)) for name in ("gen.lora.json", "gen.lora.12.json", "gen.lora.2.meta.json", "a/gen.lora.json")]
    [True, True, False, False]
    """
    name = re.escape(first.stem) + r"(\.\d+)?" + re.escape(first.suffix)
    return path.parent == first.parent and re.fullmatch(name, path.name) is not None


def journal_path(samples: Path) -> Path:
    """The journal of a sample file: `gen.lora.json` -> `gen.lora.partial.jsonl`."""
    return samples.with_name(_bare(samples) + ".partial.jsonl")


def _bare(samples: Path) -> str:
    return samples.name.removesuffix(samples.suffix) if samples.suffix in SAMPLE_ENDINGS else samples.name


def meta_path(samples: Path) -> Path:
    """The metadata of a sample file: `gen.lora.json` -> `gen.lora.meta.json`."""
    return samples.with_name(_bare(samples) + ".meta.json")


def read_meta(samples: Path) -> dict[str, Any]:
    """The metadata of a sample file; {} if unknown, or if it belongs to a file in another format."""
    meta = (
        read_json_mapping(meta_path(samples), MOST_BYTES) if meta_path(samples).is_file() else {}
    )  # large, because it lists unfinished answers
    return meta if meta.get("file", samples.name) == samples.name else {}
