"""Files of datasets on the Hugging Face hub by address: `hf://datasets/OWNER/NAME[@REVISION]/FILE`.

A file is fetched once per process; without a network, the cached one is used. Knows nothing of what files mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from diffusecli.system.errors import InputError, MachineError, first_line, sentence

GATED = "is gated. Accept its terms on its hub page, then run `hf auth login`"
NOT_THERE = "is not on the hub. Check the spelling, or run `hf auth login` if it is private"
_ADDRESS = re.compile(r"hf:/+datasets/(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+)")
"""An address as written, or as pathlib writes it, with one slash."""

_TIMEOUT = 10.0  # seconds


def is_address(path: str | Path) -> bool:
    """Whether the path is an address on the hub."""
    return re.match(r"hf:/", str(path)) is not None


def as_written(path: str | Path) -> str:
    """An address with both slashes.

    >>> as_written(Path("hf://datasets/me/dice/d6.json"))
    'hf://datasets/me/dice/d6.json'
    """
    return re.sub(r"^hf:/+", "hf://", str(path))


@lru_cache(maxsize=1024)
def fetched(address: str) -> tuple[str, Path]:
    """The address with its commit as the revision, and the local copy of the file.

    Raises `InputError` for a file that is not there, `MachineError` without a network.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or {"", ".", ".."} & set(found["file"].split("/")):
        raise InputError(
            f"{address}: write hf://datasets/OWNER/NAME/FILE, with @REVISION after NAME for another revision than main"
        )
    from huggingface_hub import constants, hf_hub_download

    with explained(address), _quietly():
        cached = not _answers(constants.ENDPOINT, constants.HF_HUB_OFFLINE)
        place = Path(
            hf_hub_download(found["repo"], found["file"], repo_type="dataset", revision=found["revision"], local_files_only=cached)
        )
    commit = place.parts[-len(Path(found["file"]).parts) - 1]  # …/snapshots/COMMIT/FILE
    return f"hf://datasets/{found['repo']}@{commit}/{found['file']}", place


def _answers(endpoint: str, offline: bool) -> bool:
    """Whether the hub can be reached. One attempt with a short timeout; the library would retry for half a minute."""
    from huggingface_hub.utils import get_session

    if offline:
        return False
    try:
        get_session().head(endpoint, timeout=_TIMEOUT)
    except Exception:  # the HTTP client's own errors have changed names before
        return False
    return True


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, the library does not print its retries."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def unreachable(remedy: str = "connect once") -> str:
    """Why the hub cannot be reached, and the fix: offline mode, or no network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "offline mode is on. Unset HF_HUB_OFFLINE"
    return f"the hub cannot be reached. {sentence(remedy)}"


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn the hub's errors into ours; `address` is what was asked for."""
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError as error:
        raise InputError(f"{address}: {GATED}") from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(f"{address}: {NOT_THERE}") from error
    except hub.RevisionNotFoundError as error:
        raise InputError(f"{address}: has no such revision. Use one of its branches, tags or commits") from error
    except hub.LocalEntryNotFoundError as error:
        raise MachineError(f"{address}: is not cached, and {unreachable()}") from error
    except (hub.OfflineModeIsEnabled, ConnectionError) as error:
        raise MachineError(f"{address}: {unreachable('check the network')}") from error
    except hub.EntryNotFoundError as error:
        raise InputError(f"{address}: there is no such file. Check its name on the hub page") from error
    except hub.HFValidationError as error:
        raise InputError(f"{address}: is not a valid name for a hub. Write OWNER/NAME") from error
    except hub.HfHubHTTPError as error:
        raise MachineError(f"{address}: the hub refuses: {first_line(error)}. Try again later, or check your login") from error
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore")):  # the client's own errors of the network
            raise
        raise MachineError(f"{address}: the hub cannot be reached ({first_line(error)}). Check the network") from error
