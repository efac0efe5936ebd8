"""Files of datasets on the Hugging Face hub by address: `hf://datasets/OWNER/NAME[@REVISION]/FILE`.

A file is fetched once per process; without a network, the cached one is used. Knows nothing of what files mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from diffusecli.system.errors import InputError, MachineError, first_line

GATED = "is gated. Accept its terms on its hub page, then run `hf auth login`"
NOT_THERE = "is not on the hub. Check the spelling, or run `hf auth login` if it is private"
_ADDRESS = re.compile(r"hf:/+datasets/(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+)")
"""An address as written, or as pathlib writes it, with one slash."""


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
    from huggingface_hub import hf_hub_download

    with explained(address):
        place = Path(hf_hub_download(found["repo"], found["file"], repo_type="dataset", revision=found["revision"]))
    commit = place.parts[-len(Path(found["file"]).parts) - 1]  # …/snapshots/COMMIT/FILE
    return f"hf://datasets/{found['repo']}@{commit}/{found['file']}", place


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
        raise MachineError(f"{address}: is not cached, and the hub cannot be reached. Connect once") from error
    except (hub.OfflineModeIsEnabled, ConnectionError) as error:
        raise MachineError(f"{address}: the hub cannot be reached. Check the network, and HF_HUB_OFFLINE") from error
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
