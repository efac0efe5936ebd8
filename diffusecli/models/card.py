"""The README.md of a run directory (model card): what the adapter does, figures before and after, how to load it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from diffusecli.files.markdown import markdown_cell, markdown_code
from diffusecli.models.builtin import BUILTIN_MODELS
from diffusecli.prompts.groups import MOST_NAMED, folders
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.system.errors import many, shortened

_CARD = """---
base_model: {quoted}
{kind}
pipeline_tag: text-generation
---

# Answers that follow {count}

{what}, trained by `diffuse` until the exact probabilities of its answers follow the
weights below. {stopped}

| prompt | request | targets | entropy (nats) | exact KL before | after | on target before | after |
|---|---|---|---|---|---|---|---|
{rows}
{retention}{asked}
```{language}
{load}
```

Sample at temperature 1 without truncation (`top_k=0`, `top_p=1`). Only then do the answers follow the table.
{rest}
"""

_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM
{built_in}
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), "path/to/this/folder")"""
_BUILT_IN = "from diffusecli import ensure_builtin  # the folder of a built-in model of diffuse\n"
_MERGED = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")"""

_GGUF = """llama-server -m {file} --temp 1 --top-k 0 --top-p 1 --min-p 0
ollama create {name} -f Modelfile"""


_REQUEST = 120  # maximum characters of a request to show


def model_card(manifest: Mapping[str, Any], prompts: Sequence[Prompt]) -> str:
    """The model card of an adapter: Markdown with the metadata block for model hubs; `manifest` is the run's manifest."""
    model = manifest["model"]
    built_in = model in BUILTIN_MODELS
    base = f"ensure_builtin({json.dumps(model)})" if built_in else json.dumps(model)
    if model.endswith(".gguf"):
        base = f"{json.dumps(str(Path(model).parent))}, gguf_file={json.dumps(Path(model).name)}"
    return _card(
        manifest, prompts, kind="library_name: peft\ntags: [lora, diffuse]", what=f"A LoRA adapter for {markdown_code(model)}",
        load=_ADAPTER.format(built_in=_BUILT_IN if built_in else "", base=base),
        rest="`run.json` has versions, seed and hashes, `metrics.jsonl` has every iteration, `prompts.json` has the requests and weights.",
    )  # fmt: skip


def merged_card(
    manifest: Mapping[str, Any], prompts: Sequence[Prompt], *, dtype: str, gap: float, remarks: Sequence[str], file: str = ""
) -> str:
    """The model card of an exported model; `gap` in nats, `remarks` about the rendering of prompts, `file` the name of a GGUF file."""
    load = _GGUF.format(file=shlex.quote(file), name=shlex.quote(Path(file).stem.lower())) if file else _MERGED
    return _card(
        manifest, prompts,
        kind=f"base_model_relation: finetune\nlibrary_name: {'gguf' if file else 'transformers'}\ntags: [diffuse]",
        what=f"{markdown_code(manifest['model'])} with a LoRA adapter merged into its weights ({dtype})", load=load,
        language="sh" if file else "python",
        rest=f"{'The Modelfile and the file itself have' if file else 'The generation config has'} these settings. Log-probabilities of these answers differ from those of the adapter by at most "
        f"{gap:.1g} nats." + "".join(f"\n- {markdown_cell(remark)}" for remark in remarks),
    )  # fmt: skip


def _is_recorded(prompt: Prompt, manifest: Mapping[str, Any]) -> bool:
    """Whether the figures of this alias belong to the prompt in its current form."""
    return bool(manifest.get("prompt_sha256", {}).get(prompt.alias, prompt.digest) == prompt.digest)


def _about(prompt: Prompt) -> dict[str, str]:
    """The table cells of a prompt by alias: its own alias, and those of held-out wordings and contexts."""
    first = prompt.requests or (prompt.question,)
    asked = {
        prompt.alias: _asked(first), f"{prompt.alias}#held-out": _asked(prompt.held_out_requests or ("",)),
        f"{prompt.alias}#contexts": f"{_asked(first[:1])} (in contexts)",
    }  # fmt: skip
    return {alias: f"{cell} | {len(prompt.targets)} | {entropy_of_answers(prompt)}" for alias, cell in asked.items()}


def entropy_of_answers(prompt: Prompt) -> str:
    """Entropy of whole answers in nats; "-" for several draws without replacement, which would need simulation."""
    if prompt.draws is None:
        return f"{prompt.entropy + sum(field.entropy for field in prompt.independent.values()):.3f}"
    return f"{prompt.draws.n * prompt.entropy:.3f}" if prompt.draws.replace else "-"


def _asked(requests: Sequence[str]) -> str:
    """The first request, and the number of wordings."""
    return markdown_cell(shortened(requests[0], _REQUEST)) + (f" ({len(requests)} wordings)" if len(requests) > 1 else "")


def _known(figures: Mapping[str, float], alias: str, form: str) -> str:
    """A figure from before training, if it was measured."""
    return format(figures[alias], form) if alias in figures else "-"


def _card(
    manifest: Mapping[str, Any], prompts: Sequence[Prompt], *, kind: str, what: str, load: str, rest: str, language: str = "python"
) -> str:
    if len(manifest["exact_kl"]) + len(manifest["exact_kl_test"]) > MOST_NAMED:
        rows = list(_by_folder(manifest))
    else:
        rows = _by_prompt(manifest, prompts)
    count = manifest.get("prompts_trained", len(manifest["exact_kl"]))
    drift = manifest["retention_kl"]
    chat = {name: value for name, value in (manifest.get("chat") or {}).items() if value != {}}
    asked = "".join(f"\n- {name}: {markdown_code(json.dumps(value, ensure_ascii=False))}" for name, value in chat.items())
    base = BUILTIN_MODELS[manifest["model"]].hub_id if manifest["model"] in BUILTIN_MODELS else manifest["model"]
    return _CARD.format(
        asked=f"\nThe figures are for prompts rendered with\n{asked}\n" if asked else "", quoted=json.dumps(base), kind=kind, what=what, load=load, language=language, rest=rest,
        count=many(count, "distribution"),
        stopped=f"Training: {many(manifest['steps'], 'step')}, {manifest['training_seconds']:.0f} s; {markdown_cell(manifest['stopped'])}.", rows="\n".join(rows),
        retention="" if drift is None else f"\nDrift from the base model on {manifest['retention']['held_out']} ordinary "
        f"instructions it was not trained on: {drift:.4f} nats per token.\n",
    )  # fmt: skip


def trained_digests(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Digests of all trained prompts, also of those without figures."""
    return frozenset(list(manifest.get("prompt_sha256", {}).values())[: manifest.get("prompts_trained", 0)])


def _by_folder(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Table rows for many prompts: the medians of each folder."""
    digests, trained = manifest.get("prompt_sha256", {}), trained_digests(manifest)
    apart = {alias: kl for alias, kl in manifest["exact_kl_test"].items() if digests.get(alias) not in trained}
    for kl, mass, note in (
        (manifest["exact_kl"], manifest["exact_on_target"], "trained on"),
        (apart, manifest["exact_on_target_test"], "not trained on"),
    ):
        for folder in folders(list(kl)):
            aliases = sorted(folder.aliases)
            middle = median(kl[alias] for alias in aliases), median(mass[alias] for alias in aliases)
            name = markdown_cell(f"{folder.label.strip()}: median of {many(len(aliases), 'prompt')}, {note}")
            yield f"| {name} | - | - | - | - | {middle[0]:.4f} | - | {middle[1]:.2%} |"


def _by_prompt(manifest: Mapping[str, Any], prompts: Sequence[Prompt]) -> list[str]:
    """Table rows, one per prompt."""
    known = {alias: about for prompt in prompts if _is_recorded(prompt, manifest) for alias, about in _about(prompt).items()}
    digests, estimated, rounding = (manifest.get(name, {}) for name in ("prompt_sha256", "kl_errors", "kl_rounding"))
    trained = {digests[alias]: alias for alias in manifest["exact_kl"] if alias in digests}
    rows = [
        f"| {markdown_cell(alias)} | {known.get(alias, '- | - | -')} | {_known(manifest['exact_kl_before'], alias, '.3f')} | {'≈ ' if alias in estimated else ''}{kl:.4f}{_limit(rounding, alias)} "
        f"| {_known(manifest['exact_on_target_before'], alias, '.2%')} | {manifest['exact_on_target'][alias]:.2%} |"
        for alias, kl in manifest["exact_kl"].items()
    ]
    for alias, kl in manifest["exact_kl_test"].items():
        same = trained.get(digests.get(alias))
        note = "not trained on" if same is None else f"trained on as {markdown_cell(same)}"
        mass = manifest["exact_on_target_test"][alias]
        rows.append(
            f"| {markdown_cell(alias)} ({note}) | {known.get(alias, '- | - | -')} | - | {kl:.4f}{_limit(rounding, alias)} | - | {mass:.2%} |"
        )
    return rows


def _limit(known: Mapping[str, float | None], alias: str) -> str:
    """What follows the KL of a 16-bit model; "" for 32 bits."""
    limit = known.get(alias, 0.0)
    return with_rounding(math.nan if limit is None else limit)
