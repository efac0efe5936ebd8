"""`diffuse export`: merge a run's adapter into its base model, as a standard Hugging Face folder or as one GGUF file.

The output folder is written completely or not at all, after a check that answers have the same probabilities as with the adapter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from diffusecli.evaluation.exact import scorer_of
from diffusecli.evaluation.prompt_book import kept_prompt
from diffusecli.files.endings import require_ending
from diffusecli.files.locks import lock_beside, only_writer, remove_scratch_folders, require_idle
from diffusecli.files.writing import put_folder, require_space, require_writable, write_json
from diffusecli.models.adapters import ADAPTER_FILES, base_of, recorded_base
from diffusecli.models.card import merged_card
from diffusecli.models.chat import Chat, ChatSettings
from diffusecli.models.devices import number_format
from diffusecli.models.encoding import EncodedPrompt, encode_prompt, encode_wordings
from diffusecli.models.gguf_config import gguf_config
from diffusecli.models.gguf_export import BYTES, GgufPlan, adapter_name, require_applicable, require_context, write_adapter
from diffusecli.models.gguf_tensors import round_weights
from diffusecli.models.loading import LoadedModel, load_chat, load_hollow, load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import model_source
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.environment import environment
from diffusecli.runs.finding import config_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError, cannot_write
from diffusecli.system.notices import Notice
from diffusecli.system.waits import waiting_for
from diffusecli.training.visits import drawn_tree, needs_all

MARK = "export.json"
"""Records what was exported; a folder without it is never replaced."""

_LARGE, _PATHS = 20_000, 1024
"""For a tree with more than `_LARGE` prefixes, `_PATHS` paths are compared before and after merging."""

_TOLERANCE = 1e-3  # nats, of an answer's log-probability in float32
_FALLBACK_PROMPT = Prompt(request="Say a letter.", targets=("{a}", "{b}"), alias="a letter")


@dataclass(frozen=True)
class Exported:
    """A merged model, and how closely its answers match the adapter's."""

    parameters: int
    dtype: str
    answers: int | None  # number of answers compared; None if nothing was
    gap: float | None  # nats: the largest difference of an answer's log-probability; None if nothing was compared
    file: str = ""  # the GGUF file in the folder; empty for a Hugging Face folder

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields as written into the folder."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


def export(
    run: RunDir, to: Path, *, model: str | None = None, precision: str | None, force: bool, notice: Notice,
    trust_remote_code: bool = False, gguf: str | None = None, gguf_adapter: bool = False,
) -> Exported:  # fmt: skip
    """Merge in float32, compare, round to `precision` (the run's by default), compare again, and write.

    With `gguf` (f16, bf16 or q8_0) the merged model is one GGUF file; with `gguf_adapter` the adapter alone is, and nothing is merged.
    `model` names the base model if the run does not, or if its path or name has changed. An adapter without a run also works.
    Raises `InputError` if there is nothing to merge, if the base model is quantised, if llama.cpp does not have the architecture or the
    tokenizer (GGUF), or if `to` holds something else;
    `MachineError` if the disk is full or the merged model gives different probabilities.
    """
    if gguf and gguf_adapter:
        raise InputError("--gguf with --gguf-adapter: choose one. --gguf writes the merged model, --gguf-adapter the adapter alone")
    if precision and (gguf or gguf_adapter):
        raise InputError("--precision: does not apply to GGUF. Choose the type with --gguf (an adapter is written in float32)")
    config = _config(run, model, trust_remote_code)
    require_ending(
        to, "-o", "a model is written as a folder" if gguf or gguf_adapter else "a model is written as a Hugging Face folder"
    )
    if Path.cwd().is_relative_to(to.resolve()):
        raise InputError(f"{to}: is the current folder. Choose another one")
    require_writable(to.absolute().parent)
    with only_writer(to, lock_beside(to.absolute())):
        remove_scratch_folders(to.absolute().parent, _scratch_prefix(to))
        _require_place(to, force)
        require_idle(run.path, run.lock)
        if not run.has_adapter:
            raise InputError(f"{run.path}: no finished adapter found. Finish the training with `diffuse train`")
        if config.quantize:
            raise _quantised(run)
        if gguf_adapter:
            return _export_adapter(run, config, to, notice, named=model is not None)
        return _export(run, config, to, precision, gguf, notice, named=model is not None)


def _config(run: RunDir, model: str | None, trust_remote_code: bool) -> Config:
    """The run's config, or one from the adapter only."""
    if (run.path / MARK).is_file() and not run.has_adapter and not run.config.is_file():
        raise InputError(f"{run.path}: this is already an exported model. Use it as it is, or export the run again")
    if not run.has_adapter or run.owner.config.is_file():
        return config_of(run.owner, model=model, trust_remote_code=trust_remote_code)
    return Config(model=model or base_of(run.path), output_dir=str(run.path), precision="fp32", trust_remote_code=trust_remote_code)


def _export_adapter(run: RunDir, config: Config, to: Path, notice: Notice, *, named: bool) -> Exported:
    """Write the adapter alone as a GGUF file. The base model is not computed."""
    from safetensors.torch import load_file

    source = model_source(config, named=named)
    base = load_hollow(source, notice)
    if getattr(base.model.config, "quantization_config", None) is not None:
        raise _quantised(run)
    of = gguf_config(base.model)
    if prompts := _own_prompts(run):
        require_context(of, _encoded(prompts, replace(base, tokenizer=load_chat(source, notice).tokenizer).chat))
    load_adapter(base, run.path, recorded=recorded_base(run), named=named, notice=notice)
    require_applicable(base.model)
    name = adapter_name(to)
    with waiting_for("writing the adapter"), _new_folder(to) as folder:
        done = Exported(
            write_adapter(folder / name, base.model, load_file(run.path / ADAPTER_FILES[1]), of), "float32", None, None, name
        )
        write_json(folder / MARK, {**done.recorded, **_origin(base, run), **environment()})
    return done


def _export(
    run: RunDir, config: Config, to: Path, precision: str | None, gguf: str | None, notice: Notice, *, named: bool
) -> Exported:
    """Everything except the checks of the output folder."""
    dtype = number_format(precision or config.precision, config.device)
    source = replace(model_source(config, named=named), precision="fp32")
    base = load_model(source, notice)
    if getattr(base.model.config, "quantization_config", None) is not None:
        raise _quantised(run)
    require_space(to.absolute().parent, int(base.parameters * (BYTES[gguf] if gguf else dtype.itemsize)) // 1_000_000 + 50)
    prompts = _own_prompts(run) or [_FALLBACK_PROMPT]
    whole = _encoded(prompts, base.chat)
    portable = _portable_template(base, whole)
    plan = GgufPlan.of(base, whole, portable, to, gguf) if gguf else None
    load_adapter(base, run.path, recorded=recorded_base(run), named=named, notice=notice)
    encoded = [
        replace(e, trie=drawn_tree(e, _PATHS, None)) if len(e.trie.internal) > _LARGE and not needs_all(e) else e for e in whole
    ]
    scorer = scorer_of(base, encoded, replace(source, precision=config.precision), config.alg_config, notice)
    under_adapter = scorer.log_probs(encoded)
    with waiting_for("merging the adapter"):
        scorer.model = base.model = base.model.merge_and_unload(safe_merge=True)
    gap = _gap(under_adapter, scorer.log_probs(encoded))
    if not gap <= _TOLERANCE:
        raise MachineError(f"{run.path}: the merged model differs from the adapter by {gap:.2g} nats. Nothing was written. Sample with "
                           "the adapter instead")  # fmt: skip
    if plan is not None:
        with waiting_for("rounding the weights"):
            round_weights(base.model, plan.kind)
        gap = _gap(under_adapter, scorer.log_probs(encoded))
    elif dtype != base.model.dtype:
        for weight in base.model.parameters():  # not `model.to`: position tables stay float32 when a model is loaded
            weight.data = weight.data.to(dtype)
        gap = _gap(under_adapter, scorer.log_probs(encoded))
    written = (gguf or "", plan.file) if plan is not None else (str(dtype).removeprefix("torch."), "")
    done = Exported(base.parameters, written[0], sum(len(e.trie.leaves) for e in encoded), gap, written[1])
    with waiting_for("writing the model"), _new_folder(to) as folder:
        if plan is not None:
            plan.write(folder, base.model)
        else:
            base.model.generation_config = _neutral(base, whole)
            base.model.save_pretrained(folder)
            base.tokenizer.chat_template = portable
            base.tokenizer.save_pretrained(folder)
        _describe(folder, done, base, run, prompts, whole)
    return done


def _portable_template(base: LoadedModel, encoded: Sequence[EncodedPrompt]) -> Any:
    """The chat template to write; raises `MachineError` if it turns prompts into other tokens."""
    chat = Chat(base.tokenizer, base.eos_ids, ChatSettings(base.chat.portable_template))
    for before in encoded:
        after = encode_prompt(before.prompt, chat)
        if (after.prompt_ids, after.trie) != (before.prompt_ids, before.trie):
            raise MachineError(f"{before.alias}: the system prompt or variables of this run cannot be written into the chat template. Nothing "
                               "was written. Sample with the adapter instead")  # fmt: skip
    return chat.template


def _remarks(encoded: Sequence[EncodedPrompt]) -> list[str]:
    """Notes for programs that render prompts and stop answers."""
    ends = [f"an answer ends before {e.stop_text!r}: pass it as a stop string" for e in encoded if e.stop_text]
    return list(dict.fromkeys([*(remark for e in encoded for remark in e.remarks), *ends]))


def _require_place(to: Path, force: bool) -> None:
    """Raises `InputError` before the work if the folder cannot be written."""
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        if not (to / MARK).is_file():
            raise InputError(f"{to}: exists and was not written by `diffuse export`. Choose another folder")
        if not force:
            raise InputError(f"{to}: already holds an exported model. Replace it with --force, or choose another folder")


def _quantised(run: RunDir) -> InputError:
    return InputError(
        f"{run.path}: was trained on a quantised base model. Merged into unquantised weights, the adapter gives another model. Sample with the "
        f"adapter (`diffuse sample {run.path}`, or a server), or continue training without quantize (load_model: true, "
        f"ckpt_dir: {run.path}, another output_dir) and export that run"
    )


def _own_prompts(run: RunDir) -> list[Prompt]:
    """The run's prompts with targets; none for an adapter without a run."""
    kept = (kept_prompt(alias, value, run.prompts) for alias, value in run.read_prompts().items())
    return [prompt for prompt in kept if prompt is not None and prompt.targets]


def _encoded(prompts: Sequence[Prompt], chat: Chat) -> list[EncodedPrompt]:
    """All wordings of all prompts in tokens."""
    return [wording for prompt in prompts for wording in encode_wordings([*prompt.wordings, *prompt.held_out], chat)]


def _gap(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True))


def _scratch_prefix(to: Path) -> str:
    return f".{to.name}.export."


@contextmanager
def _new_folder(to: Path) -> Iterator[Path]:
    """A temporary folder next to `to`, which replaces it at the end. Raises `MachineError` if that fails."""
    try:
        with tempfile.TemporaryDirectory(prefix=_scratch_prefix(to), dir=to.absolute().parent) as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            yield folder
            put_folder(folder, to)
    except (OSError, SafetensorError) as error:
        raise cannot_write(to, error) from error


def _describe(
    folder: Path, done: Exported, base: LoadedModel, run: RunDir, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    """Write the model card and the manifest."""
    manifest = run.read_manifest()
    if "exact_kl" in manifest and done.gap is not None:
        card = merged_card(manifest, prompts, dtype=done.dtype, gap=done.gap, remarks=_remarks(encoded), file=done.file)
        (folder / "README.md").write_text(card, encoding="utf-8")
    write_json(folder / MARK, {**done.recorded, **_origin(base, run), **environment()})


def _neutral(base: LoadedModel, encoded: Sequence[EncodedPrompt]) -> Any:
    """A generation config that samples the model's own distribution and stops at the end of answers."""
    from transformers import GenerationConfig

    stops = sorted(frozenset().union(*(e.stop_ids for e in encoded)))
    pad = base.tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, bos_token_id=base.tokenizer.bos_token_id, eos_token_id=stops,
        pad_token_id=stops[0] if pad is None and stops else pad,
    )  # fmt: skip


def _origin(base: LoadedModel, run: RunDir) -> dict[str, Any]:
    return {**base.recorded, "adapter_sha256": run.adapter_sha256, **base.chat_settings.recorded}
