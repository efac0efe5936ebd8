"""How files of samples, of their settings and of what has been sampled so far are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusecli.files.documents import read_json_mapping

MODES = ("untuned", "lora")
MOST_BYTES = 2_000_000_000  # of a file of samples; larger ones belong into counts


FORMATS = {"json": ".json", "jsonl": ".jsonl", "counts": ".json", "csv": ".csv"}
"""How samples are written -> how such files end."""


SAMPLE_ENDINGS = tuple(dict.fromkeys(FORMATS.values()))


def journal_path(samples: Path) -> Path:
    """Where samples stand until all are there: `gen.lora.json` -> `gen.lora.partial.jsonl`."""
    return samples.with_name(_bare(samples) + ".partial.jsonl")


def _bare(samples: Path) -> str:
    return samples.name.removesuffix(samples.suffix) if samples.suffix in SAMPLE_ENDINGS else samples.name


def meta_path(samples: Path) -> Path:
    """Where the settings of a sample file stand: `gen.lora.json` -> `gen.lora.meta.json`."""
    return samples.with_name(_bare(samples) + ".meta.json")


def read_meta(samples: Path) -> dict[str, Any]:
    """How a file of samples was made; {} where that is not known, or is of a file in another format."""
    meta = read_json_mapping(meta_path(samples), MOST_BYTES) if meta_path(samples).is_file() else {}  # it names unfinished answers
    return meta if meta.get("file", samples.name) == samples.name else {}
