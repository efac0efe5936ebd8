"""Check that the file extension of an output matches its format."""

from __future__ import annotations

from pathlib import Path

from diffusecli.system.errors import InputError

_FORMATS = {
    ".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".toml", ".ini", ".xml",
    ".txt", ".md", ".rst", ".tex", ".log", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx",
    ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".parquet", ".feather", ".arrow", ".data", ".db", ".sqlite", ".sql", ".sav", ".dta",
    ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".eps",
    ".gguf", ".ggml", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5", ".npy", ".npz", ".pkl", ".pickle", ".msgpack",
    ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".whl",
    ".py", ".ipynb", ".js", ".sh",
}  # fmt: skip
"""Extensions that name a format. Others, such as that of `t0.5`, do not."""


def other_format(path: Path, *endings: str) -> str:
    """The extension of a known format that is not in `endings`, else empty."""
    ending = path.suffix.lower()
    return path.suffix if ending in _FORMATS and ending not in endings else ""


def require_ending(path: Path, option: str, written: str, *endings: str) -> None:
    """Raise `InputError` if the extension names another format than the one that is `written` (a clause). Without `endings`: a folder.

    >>> require_ending(Path("t0.5"), "-o", "samples are written as JSON", ".json")
    >>> require_ending(Path("s.xlsx"), "-o", "samples are written as JSON or CSV", ".json", ".csv")
    Traceback (most recent call last):
    diffusecli.system.errors.InputError: -o s.xlsx: samples are written as JSON or CSV, not as .xlsx. Use the extension .json or .csv
    """
    if ending := other_format(path, *endings):
        *first, last = endings or ("",)
        names = f"{', '.join(first)} or {last}" if first else last
        remedy = f"Use the extension {names}" if endings else f"Choose a folder name without {ending}"
        raise InputError(f"{option} {path}: {written}, not as {ending}. {remedy}")
