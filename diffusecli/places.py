"""Where the file lies that a path names: the user's own, else that of the library which comes with diffuse.

The library is the repository's prompts, configs and schemas. A wheel carries them inside the package; in a checkout they
are where they always are. Nothing is ever written there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from diffusecli.errors import nearest

_FOLDERS = ("prompts", "configs", "schemas")
_CARRIED = Path(__file__).parent / "library"
LIBRARY = _CARRIED if _CARRIED.is_dir() else Path(__file__).resolve().parent.parent
"""The folder that holds the library's folders."""

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
        _tell(f"{path} is not here: it, and whatever else is not, comes from the library of diffuse ({LIBRARY})")
        return Found(str(path), LIBRARY / wanted)
    return Found(str(path), wanted)


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; a name that no file can have (too long, a NUL in it) is not there."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def look_again(path: str | Path, otherwise: str) -> str:
    """The remedy for a path that is not there: the nearest name that is, as a question, else what `otherwise` says."""
    if "*" in str(path):
        return "patterns are not expanded: name the files, or a folder that holds them"
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
def library_told(notice: Callable[[str], None]) -> Iterator[None]:
    """Within it, the first thing that is taken from the library is told; outside of it nothing is."""
    before = _listener.set(notice)
    try:
        yield
    finally:
        _listener.reset(before)


def _tell(message: str) -> None:
    if (listener := _listener.get()) is not None:
        _listener.set(None)
        listener(message)
