"""What goes wrong while a model is fetched or read, told in one sentence with its remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffusecli.models.builtin import BUILTIN_MODELS
from diffusecli.system.errors import DiffuseError, InputError, MachineError, first_line
from diffusecli.system.memory import SMALLER, out_of_memory

_TIMEOUT = 10.0  # seconds

_REASONS = (
    ("custom code", "needs Python code that comes with it: if you trust its authors add --trust-remote-code, or set trust_remote_code: true in a config that you name"),
    ("Unrecognized configuration class", "is no causal (decoder-only) language model, name one that is"),
    ("does not recognize this architecture", "has an architecture that this version of transformers does not know, upgrade transformers"),
    ("named model.safetensors", "has no weights as .safetensors (pickled ones can run code and are not opened): convert them, or name another revision"),
    ("ignore_mismatched_sizes", "has weights of other shapes than its config.json says, fetch it again"),
    ("Unrecognized model in", "has no config.json that says what it is, name the folder of a whole model"),
)  # fmt: skip
"""What transformers says -> what it means for the user."""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Raises `InputError` for a model that is gated, missing or not to be used, `MachineError` for one that is out of reach.

    The libraries read files of others in here, and junk in them can end in any error.
    """
    try:
        yield
    except DiffuseError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise MachineError(f"the model {name} does not fit into memory, {SMALLER}") from error
        raise _told(name, error) from error


def answers(name: str, revision: str | None) -> bool:
    """Whether the hub can be asked for this model; where it cannot, what is cached has to do.

    Asked once and without patience: the libraries underneath would try again and again for every file, a minute in all.
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
    """Where the files of a fetched model lie, a folder named after the commit; None where they are in no cache of the hub's library."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _told(name: str, error: Exception) -> DiffuseError:
    from huggingface_hub import errors as hub
    from safetensors import SafetensorError

    chain = list(_chain(error))
    kinds: tuple[tuple[tuple[type[BaseException], ...], type[DiffuseError], str], ...] = (
        ((hub.GatedRepoError,), InputError, "is gated: accept its terms on its hub page, then run `hf auth login`"),
        ((hub.RepositoryNotFoundError,), InputError, "is not on the hub: check the spelling, or `hf auth login` if it is private"),
        ((hub.RevisionNotFoundError,), InputError, "has no such revision: name a branch, tag or commit of it, or leave revision out"),
        ((hub.HFValidationError,), InputError, "cannot be on a hub: write owner/name, or the path of a folder"),
        ((hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError), MachineError,
         f"is not cached and the hub cannot be reached: connect once, or use the built-in {next(iter(BUILTIN_MODELS))}"),
        ((SafetensorError,), InputError, f"cannot be loaded: its weights are damaged ({first_line(error)}), fetch them again"),
        ((OSError, ValueError, ImportError, LookupError), InputError, _reason(name, chain)),
    )  # fmt: skip
    if isinstance(error, RuntimeError) and "ignore_mismatched_sizes" in str(error):
        return InputError(f"the model {name} {_reason(name, chain)}")
    for causes, kind, meaning in kinds:
        if any(isinstance(cause, causes) for cause in chain):
            return kind(f"the model {name} {meaning}")
    return InputError(f"the model {name} cannot be loaded: {type(error).__name__}: {first_line(error)}; fetch it again")


def _reason(name: str, chain: Sequence[BaseException]) -> str:
    said = " ".join(map(str, chain))
    for words, meaning in _REASONS:
        if words in said:
            return meaning
    if any(word in said.lower() for word in ("backend tokenizer", "tiktoken", "sentencepiece")):
        if Path(name).is_dir() and not (Path(name) / "tokenizer.model").is_file():
            return "has no tokenizer: its folder must hold a tokenizer.json or tokenizer.model"
        if not _reads_sentencepiece():
            return "has a tokenizer that needs sentencepiece: run `pip install 'diffuse-lm[sentencepiece]'`"
    return f"cannot be loaded: {first_line(chain[0])}"


def _reads_sentencepiece() -> bool:
    """Whether all is there that transformers needs for a tokenizer.model; where not, it asks for another package."""
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    return bool(is_sentencepiece_available() and is_protobuf_available())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
