"""Where the file lies that a path names: the user's own, else that of the library which comes with diffuse.

The library is the repository's prompts, configs and schemas. A wheel carries them inside the package; in a checkout they
are where they always are. Nothing is ever written there.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from diffusecli.system.errors import InputError, nearest

_FOLDERS = ("prompts", "configs", "schemas")
_CARRIED = Path(__file__).parent.parent / "library"
LIBRARY = _CARRIED if _CARRIED.is_dir() else Path(__file__).resolve().parents[2]
"""The folder that holds the library's folders."""

_LEFT_TO_FILL_IN = re.compile(r"\$\w+|\$\{[^}]*\}?|\$\([^)]*\)?|\{[{%].*?(?:[}%]\}|\Z)|\A\?\?\?\Z")
"""What a shell, Hydra, Jinja and the like would replace; a folder of that name is never meant."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib writes s3://x as s3:/x

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@dataclass(frozen=True)
class Found:
    """A path and where it leads."""

    name: str  # what results call it; from the library the path that was asked for, so that results compare
    place: Path  # where it lies, or would lie if it were there


def find(path: str | Path, beside: Path | None = None) -> Found:
    """What a path means: from the working directory, else beside the config that names it (its folder), else in the library."""
    if _is_somebodys(path):
        return Found(str(path), Path(path))
    if beside is not None and _is_somebodys(beside / path):
        return Found(str(beside / path), beside / path)
    wanted = Path(path)
    if wanted.parts[:1] and wanted.parts[0] in _FOLDERS and ".." not in wanted.parts and exists(LIBRARY / wanted):
        _announce(f"{path} is not here: it, and whatever else is not, comes from the library of diffuse ({LIBRARY})")
        return Found(str(path), LIBRARY / wanted)
    return Found(str(path), wanted)


def wrong_as_written(path: str) -> tuple[str, str]:
    """What is wrong with a path as a person wrote it, and the remedy; empty when nothing is, or when it is there as it is written."""
    if (left := _LEFT_TO_FILL_IN.search(path)) and not exists(path):
        return f"'{left[0]}' is not replaced by a value", "write the value itself"
    if _ADDRESS.match(path) and not exists(path):
        return "is an address, not a path", "name a place on this machine (a model by its id on the hub: owner/name)"
    user = path.split("/", 1)[0]
    if not user.startswith("~") or at_home(path) != path or (user != "~" and exists(path)):
        return "", ""
    if user == "~":
        return "the home folder is not known", "write the whole path"
    return f"there is no user '{user[1:]}'", f"write ./{path} for a file or folder of that name"


def at_home(path: str) -> str:
    """The path with a `~` in front replaced by the home folder, `~name` by that user's."""
    return os.path.expanduser(path)  # noqa: PTH111 (pathlib raises for a user that is not there)


def meant(path: str) -> str:
    """What a person means by a path; raises `InputError` for one that would be another file or folder than they mean."""
    message, remedy = wrong_as_written(path)
    if message:
        raise InputError(f"{path}: {message}, {remedy}")
    return at_home(path)


def spread(path: str | Path, beside: Path | None = None, endings: tuple[str, ...] = (".json",)) -> list[str]:
    """The name of what a path leads to (see `find`); of a pattern (`*`, `?`, `[…]`) those of all folders, and files with the endings."""
    found = find(path, beside)
    if not glob.has_magic(str(path)) or exists(found.place):
        return [found.name]
    for folder in (Path(), beside, LIBRARY):
        if folder is None:
            continue
        matches = sorted(glob.glob(str(path), root_dir=folder, recursive=True))  # noqa: PTH207 (pathlib's takes hidden files too)
        matches = [match for match in matches if match.endswith(endings) or (folder / match).is_dir()]
        if matches and (folder != LIBRARY or Path(path).parts[0] in _FOLDERS):
            return [find(match, beside).name for match in matches]
    return [found.name]


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; a name that no file can have (too long, a NUL in it) is not there."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def real(path: str | Path) -> Path:
    """The file or folder itself, by whatever path it is named: links followed, the library searched (without a notice)."""
    with library_notices(lambda _: None):
        place = find(path).place
    try:
        return place.resolve()
    except (OSError, ValueError):  # a name that no file can have
        return place


def look_again(path: str | Path, otherwise: str) -> str:
    """The remedy for a path that is not there: the nearest name that is, as a question, else what `otherwise` says."""
    if glob.has_magic(str(path)):
        return "let the shell replace the pattern: remove the quotes around it"
    wanted = Path(path)
    here, carried = _nearest(wanted, Path()), _nearest(wanted, LIBRARY)
    if carried and carried.parts[0] in _FOLDERS and (here is None or here.parts[0] != wanted.parts[0] == carried.parts[0]):
        here = carried
    return f"did you mean '{here}'?" if here else otherwise


def _nearest(wanted: Path, root: Path) -> Path | None:
    """The path below `root` with its first missing name replaced by the nearest there is; what follows is kept if it is there too."""
    for folder, name in zip(reversed(wanted.parents), wanted.parts[wanted.is_absolute() :], strict=True):
        if not exists(root / folder / name):
            try:
                near = nearest(name, [there.name for there in (root / folder).iterdir()])
            except OSError:
                return None
            if near is None:
                return None
            beyond = folder / near / wanted.relative_to(folder / name)
            return beyond if exists(root / beyond) else folder / near
    return None


def _is_somebodys(path: str | Path) -> bool:
    """Whether it is there, or a link is broken or a folder shut on the way to it: who opens it says why that fails."""
    try:
        return Path(path).exists() or any(map(_is_broken_link, (Path(path), *Path(path).parents)))
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def visible_files(folder: str | Path, endings: tuple[str, ...]) -> list[Path]:
    """Names of the files below a folder with one of the endings, hidden files and folders left out."""
    place = find(folder).place
    below = (file.relative_to(place) for file in place.rglob("*") if file.suffix in endings and file.is_file())
    return sorted(Path(folder, file) for file in below if not any(part.startswith(".") for part in file.parts))


@contextmanager
def library_notices(notice: Callable[[str], None]) -> Iterator[None]:
    """Within it, the first use of the library is announced with `notice`; outside of it no use is."""
    before = _listener.set(notice)
    try:
        yield
    finally:
        _listener.reset(before)


def _announce(message: str) -> None:
    if (listener := _listener.get()) is not None:
        _listener.set(None)
        listener(message)
