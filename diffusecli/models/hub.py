"""Errors of the hub and of model files as one message with the fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffusecli.files.hub_paths import GATED, NOT_THERE, unreachable
from diffusecli.models.builtin import BUILTIN_MODELS
from diffusecli.system.errors import DiffuseError, InputError, MachineError, first_line
from diffusecli.system.memory import SMALLER, out_of_memory

_TIMEOUT = 10.0  # seconds

_REASONS = (
    ("custom code", "needs Python code that comes with it. If you trust its authors, add --trust-remote-code, or set trust_remote_code: true in your config"),
    ("Unrecognized configuration class", "is not a causal (decoder-only) language model. Use one that is"),
    ("does not recognize this architecture", "has an architecture that this version of transformers does not support. Upgrade transformers"),
    ("named model.safetensors", "has no .safetensors weights (pickled weights can run code and are not loaded). Convert them, or use another revision"),
    ("ignore_mismatched_sizes", "has weights with other shapes than in its config.json. Fetch it again"),
    ("Unrecognized model in", "has no config.json that describes it. Use the folder of a complete model"),
)  # fmt: skip
"""Messages of transformers -> their meaning and fix."""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Raises `InputError` for a model that is gated, missing or unusable, `MachineError` if it cannot be reached.

    The libraries read other people's files here, and broken files can raise any error.
    """
    try:
        yield
    except DiffuseError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise MachineError(f"the model {name} does not fit into memory. {SMALLER[0].upper()}{SMALLER[1:]}") from error
        raise _as_message(name, error) from error


def answers(name: str, revision: str | None) -> bool:
    """Whether the hub can be reached for this model; otherwise only the cache is used.

    One attempt with a short timeout. The libraries would retry for every file, a minute in total.
    Raises as `explained` does.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    with explained(name):
        try:
            HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
        except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
            raise
        except Exception:  # no network, a proxy, too many requests, …: the HTTP client's own errors have changed names before
            return False
    return True


def cached_folder(name: str, revision: str) -> Path | None:
    """The folder of a fetched model, named after the commit; None if it is not in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _as_message(name: str, error: Exception) -> DiffuseError:
    from huggingface_hub import errors as hub
    from safetensors import SafetensorError

    chain = list(_chain(error))
    kinds: tuple[tuple[tuple[type[BaseException], ...], type[DiffuseError], str], ...] = (
        ((hub.GatedRepoError,), InputError, GATED),
        ((hub.RepositoryNotFoundError,), InputError, NOT_THERE),
        ((hub.RevisionNotFoundError,), InputError, "has no such revision. Use one of its branches, tags or commits, or remove revision"),
        ((hub.HFValidationError,), InputError, "is not a valid name for a hub. Write owner/name, or the path of a folder"),
        ((hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError), MachineError,
         f"is not cached, and {unreachable()}, or use the built-in {next(iter(BUILTIN_MODELS))}"),
        ((SafetensorError,), InputError, f"cannot be loaded: its weights are damaged ({first_line(error)}). Fetch them again"),
        ((OSError, ValueError, ImportError, LookupError), InputError, _reason(name, chain)),
    )  # fmt: skip
    if isinstance(error, RuntimeError) and "ignore_mismatched_sizes" in str(error):
        return InputError(f"the model {name} {_reason(name, chain)}")
    for causes, kind, meaning in kinds:
        if any(isinstance(cause, causes) for cause in chain):
            return kind(f"the model {name} {meaning}")
    return InputError(f"the model {name} cannot be loaded: {type(error).__name__}: {first_line(error)}. Fetch it again")


def _reason(name: str, chain: Sequence[BaseException]) -> str:
    said = " ".join(map(str, chain))
    for words, meaning in _REASONS:
        if words in said:
            return meaning
    if any(word in said.lower() for word in ("backend tokenizer", "tiktoken", "sentencepiece")):
        if Path(name).is_dir() and not (Path(name) / "tokenizer.model").is_file():
            return "has no tokenizer. Its folder must contain a tokenizer.json or tokenizer.model"
        if not _reads_sentencepiece():
            return "has a tokenizer that needs sentencepiece. Run `pip install 'diffuse-lm[sentencepiece]'`"
    return f"cannot be loaded: {first_line(chain[0])}"


def _reads_sentencepiece() -> bool:
    """Whether the packages for a tokenizer.model are installed."""
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    return bool(is_sentencepiece_available() and is_protobuf_available())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
