"""`diffuse export --push`: put an adapter or an exported model on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusecli.files.hub_paths import explained
from diffusecli.models.adapters import ADAPTER_FILES, base_of
from diffusecli.models.builtin import BUILTIN_MODELS
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice
from diffusecli.system.waits import waiting_for

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CARD = "README.md"
_OF_ADAPTER = (*ADAPTER_FILES, _CARD, "run.json", "config.yaml", "prompts.json", "metrics.jsonl", "chat_template.jinja")
"""Files of a run that go to the hub; samples and the optimiser's state stay."""


def require_place(name: str, *, replace: bool, public: bool) -> bool:
    """Check the name, the login, and that the repository is new, before any work; whether it is or will be private.

    Raises `InputError` and `MachineError`.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    if not _NAME.fullmatch(name):
        raise InputError(f"--push {name}: is not a name on the hub. Write OWNER/NAME")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push {name}: is not a name on the hub. {str(error).partition(': ')[0].rstrip('.')}") from error
    if get_token() is None:
        raise InputError(f"--push {name}: you are not logged in to the hub. Run `hf auth login` first")
    with explained(f"--push {name}"):
        try:
            private = bool(HfApi().repo_info(name).private)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return not public
    if not replace:
        raise InputError(f"--push {name}: exists on the hub. Choose another name, or add to it with --force")
    if not private and not public:
        raise InputError(f"--push {name}: is a public repository. Add --public to upload to it, or choose another name")
    return private


def files_of_run(run: RunDir) -> list[Path]:
    """The files of a run that describe its adapter. Raises `InputError` without one."""
    if not run.has_adapter:
        raise InputError(f"{run.path}: no finished adapter found. Finish the training with `diffuse train`")
    return [run.path / name for name in _OF_ADAPTER if (run.path / name).is_file()]


def exported_files(folder: Path) -> list[Path]:
    """The files of an export."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def base_of_run(run: RunDir, model: str | None) -> str:
    """The base model as named on the command line, by the run, or by the adapter."""
    return model or (run.read_manifest().get("model") if run.manifest.is_file() else None) or base_of(run.path)


def push(files: Sequence[Path], folder: Path, name: str, *, base: str, public: bool, notice: Notice) -> str:
    """Upload files of a folder in one commit to a repository, which is created if needed; the address of its page.

    `base` is the base model, whose licence goes into the model card. Raises `InputError` and `MachineError`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with explained(f"--push {name}"), waiting_for(f"uploading to {name}"):
        licence = _licence_of(base, api)
        operations = []
        for file in files:
            content: Any = file
            if file.name == _CARD and licence:
                content = _with_licence(file.read_text(encoding="utf-8"), licence).encode()
            operations.append(CommitOperationAdd(file.relative_to(folder).as_posix(), content))
        api.create_repo(name, private=not public, exist_ok=True)
        api.create_commit(
            name,
            operations,
            commit_message=f"Upload {'adapter' if (folder / ADAPTER_FILES[0]).is_file() else 'model'} with diffuse",
        )
    if not licence:
        notice(f"the licence of {base} is unknown. Add `license:` to the model card on its page")
    return f"{api.endpoint}/{name}"


def _licence_of(base: str, api: Any) -> str:
    """The licence of a model as its own card has it; "" if unknown."""
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from yaml import YAMLError

    if base in BUILTIN_MODELS:
        return BUILTIN_MODELS[base].licence
    card = Path(base) / _CARD
    try:
        if Path(base).exists():
            return _plain(ModelCard.load(card).data.get("license")) if card.is_file() else ""
        return _plain((api.model_info(base).card_data or {}).get("license"))
    except (HfHubHTTPError, HFValidationError, ConnectionError, ValueError, YAMLError):
        return ""


def _plain(licence: Any) -> str:
    """The identifier of a licence; "" for anything else that a card may hold."""
    return licence if isinstance(licence, str) and re.fullmatch(r"[\w.-]+", licence) else ""


def _with_licence(card: str, licence: str) -> str:
    r"""A model card with `license:` in its first block.

    >>> _with_licence("---\nbase_model: m\n---\n", "mit")
    '---\nlicense: mit\nbase_model: m\n---\n'
    """
    return (
        card
        if re.search(r"^license:", card, re.MULTILINE) or not card.startswith("---\n")
        else f"---\nlicense: {licence}\n{card[4:]}"
    )
