"""Resolve paths: the user's own file, else the one in the bundled library.

The library is the repository's prompts, configs and schemas. A wheel contains them inside the package; a checkout has them in its
top-level folders. Nothing is written there.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from diffusecli.files.hub_paths import as_written, fetched, is_address
from diffusecli.system.errors import InputError, nearest, sentence

_FOLDERS = ("prompts", "configs", "schemas")
_CARRIED = Path(__file__).parent.parent / "library"
LIBRARY = _CARRIED if _CARRIED.is_dir() else Path(__file__).resolve().parents[2]
"""The folder that contains the library's folders."""

_LEFT_TO_FILL_IN = re.compile(r"\$\w+|\$\{[^}]*\}?|\$\([^)]*\)?|\{[{%].*?(?:[}%]\}|\Z)|\A\?\?\?\Z")
"""Placeholders of a shell, Hydra, Jinja and similar tools. They are never meant literally."""

_UNFINISHED = ".partial.jsonl"  # end of the names of unfinished samples, which no command reads

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib writes s3://x as s3:/x

_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@dataclass(frozen=True)
class Found:
    """A path and the file it refers to."""

    name: str  # the name in results; for library files the requested path, so that results compare
    place: Path  # where the file is, or would be


def find(path: str | Path, beside: Path | None = None) -> Found:
    """Resolve a path: from the working directory, else next to the config that names it (in its folder), else in the library.

    An address on the hub gets its commit as the revision.
    """
    if is_address(path):
        return Found(*fetched(as_written(path)))
    if _is_users_own(path):
        return Found(str(path), Path(path))
    if beside is not None and _is_users_own(beside / path):
        return Found(str(beside / path), beside / path)
    wanted = Path(path)
    if wanted.parts[:1] and wanted.parts[0] in _FOLDERS and ".." not in wanted.parts and exists(LIBRARY / wanted):
        _announce(f"{path}: not found here. Using the bundled copy, also for other missing files ({LIBRARY})")
        return Found(str(path), LIBRARY / wanted)
    return Found(str(path), wanted)


def wrong_as_written(path: str, *, readable: bool = False) -> tuple[str, str]:
    """What is wrong with a path as written, and the fix. Empty if nothing is wrong, or if the path exists literally.

    A `readable` path may be an address on the hub.
    """
    if readable and is_address(path):
        return "", ""
    if (left := _LEFT_TO_FILL_IN.search(path)) and not exists(path):
        return f"'{left[0]}' is not replaced by a value", "write the value itself"
    if _ADDRESS.match(path) and not exists(path):
        return "is an address, not a path", "use a local path (for a model on the hub its id: owner/name)"
    user = path.split("/", 1)[0]
    if not user.startswith("~") or at_home(path) != path or (user != "~" and exists(path)):
        return "", ""
    if user == "~":
        return "the home folder is unknown", "write the full path"
    return f"unknown user '{user[1:]}'", f"write ./{path} for a file or folder of that name"


def at_home(path: str) -> str:
    """Expand a leading `~` to the home folder, and `~name` to that user's."""
    return os.path.expanduser(path)  # noqa: PTH111 (pathlib raises for an unknown user)


def meant(path: str, *, readable: bool = False) -> str:
    """Expand a path given by the user. Raises `InputError` if it contains unreplaced placeholders, a URL or an unknown user."""
    message, remedy = wrong_as_written(path, readable=readable)
    if message:
        raise InputError(f"{path}: {message}. {sentence(remedy)}")
    return at_home(path)


def spread(path: str | Path, beside: Path | None = None, endings: tuple[str, ...] = (".json",)) -> list[str]:
    """The name of the file (see `find`). For a pattern (`*`, `?`, `[…]`) all matching folders, and files with the extensions."""
    found = find(path, beside)
    if not glob.has_magic(str(path)) or exists(found.place):
        return [found.name]
    for folder in (Path(), beside, LIBRARY):
        if folder is None:
            continue
        matches = sorted(glob.glob(str(path), root_dir=folder, recursive=True))  # noqa: PTH207 (pathlib's also returns hidden files)
        matches = [match for match in matches if match.endswith(endings) or (folder / match).is_dir()]
        if matches and (folder != LIBRARY or Path(path).parts[0] in _FOLDERS):
            return [find(match, beside).name for match in matches]
    return [found.name]


def exists(path: str | Path) -> bool:
    """Whether the file or folder exists. False for names that no file can have (too long, with a NUL)."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def in_a_file(path: str | Path) -> bool:
    """Whether the path leads into a JSON file: that of a prompt in a file with several."""
    try:
        return Path(path).parent.suffix == ".json" and Path(path).parent.is_file()
    except (OSError, ValueError):
        return False


def real(path: str | Path) -> Path:
    """The file or folder itself: follows links and searches the library (without a notice). Addresses stay, and are not fetched."""
    if is_address(path):
        return Path(as_written(path))
    with library_notices(lambda _: None):
        place = find(path).place
    try:
        return place.resolve()
    except (OSError, ValueError):  # a name that no file can have
        return place


def look_again(path: str | Path, otherwise: str, other_than: Sequence[Path] = ()) -> str:
    """The fix for a missing path: the most similar existing name as a question, else `otherwise`. `other_than` are real files never suggested."""
    if glob.has_magic(str(path)):
        return "let the shell replace the pattern: remove the quotes around it"
    wanted = Path(path)
    here, carried = _nearest(wanted, Path(), other_than), _nearest(wanted, LIBRARY, other_than)
    if carried and carried.parts[0] in _FOLDERS and (here is None or here.parts[0] != wanted.parts[0] == carried.parts[0]):
        here = carried
    return f"did you mean '{here}'?" if here else otherwise


def _nearest(wanted: Path, root: Path, other_than: Sequence[Path]) -> Path | None:
    """The path below `root` with its first missing name replaced by the most similar one. Keeps the rest if it exists."""
    for folder, name in zip(reversed(wanted.parents), wanted.parts[wanted.is_absolute() :], strict=True):
        if not exists(root / folder / name):
            try:
                near = nearest(
                    name,
                    [
                        there.name
                        for there in (root / folder).iterdir()
                        if _is_like(name, there.name)
                        and not there.name.endswith(_UNFINISHED)
                        and not (other_than and there.resolve() in other_than)
                    ],
                )
            except OSError:
                return None
            if near is None:
                return None
            beyond = folder / near / wanted.relative_to(folder / name)
            return beyond if exists(root / beyond) else folder / near
    return None


def _is_like(name: str, other: str) -> bool:
    """Whether two names are alike without their extensions, which alone make no name similar.

    >>> _is_like("nope.csv", "pets.csv"), _is_like("dicee.json", "dice.json"), _is_like("dice.yml", "dice.yaml")
    (False, True, True)
    """
    return nearest(Path(name).stem, [Path(other).stem]) is not None


def _is_users_own(path: str | Path) -> bool:
    """Whether it exists, or has a broken link or an inaccessible folder on its path. Opening it then reports the reason."""
    try:
        return in_a_file(path) or Path(path).exists() or any(map(_is_broken_link, (Path(path), *Path(path).parents)))
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def visible_files(folder: str | Path, endings: tuple[str, ...]) -> list[Path]:
    """Files below a folder with one of the extensions, without hidden files and folders."""
    place = find(folder).place
    below = (file.relative_to(place) for file in place.rglob("*") if file.suffix in endings and file.is_file())
    return sorted(Path(folder, file) for file in below if not any(part.startswith(".") for part in file.parts))


@contextmanager
def library_notices(notice: Callable[[str], None]) -> Iterator[None]:
    """Inside, report the first use of the library with `notice`. Outside, no use is reported."""
    before = _listener.set(notice)
    try:
        yield
    finally:
        _listener.reset(before)


def _announce(message: str) -> None:
    if (listener := _listener.get()) is not None:
        _listener.set(None)
        listener(message)
