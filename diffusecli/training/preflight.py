"""Check a config before a model is loaded: the model, chat template, device, packages, folders, instructions.

It reads files and names, and loads no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from diffusecli.files.documents import Document
from diffusecli.files.paths import exists, real
from diffusecli.files.writing import require_place
from diffusecli.models.adapters import read_adapter_config
from diffusecli.models.builtin import unknown_model
from diffusecli.models.chat import Chat, read_template
from diffusecli.models.encoding import encode_prompt
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import Inspection
from diffusecli.prompts.config_overrides import at_its_option
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError, Problem

_DEVICES = frozenset((
    "auto", "cpu", "cuda", "fpga", "hip", "hpu", "ideep", "ipu", "lazy", "maia", "meta", "mkldnn", "mlu", "mps", "mtia", "musa", "npu", "opencl",
    "opengl", "privateuseone", "ve", "vulkan", "xla", "xpu",
))  # fmt: skip
"""Device names of torch and its extensions, and `auto`. Availability is checked only when training starts."""


def model_problems(inspected: Inspection) -> Iterator[Problem]:
    """An unknown model, at its place in the file or at its option."""
    config, document = inspected.config, inspected.document
    if config is not None and document is not None and (unknown := unknown_model(config.model)):
        yield at_its_option(document.problem(("model",), unknown), ("model",), inspected.overridden)


def surrounding_problems(inspected: Inspection) -> Iterator[Problem]:
    """Problems with the model and the folders of a config."""
    config, document = inspected.config, inspected.document
    if config is None or document is None:
        return
    yield from model_problems(inspected)
    if config.chat_template is not None:
        try:
            read_template(config.chat_template)
        except InputError as error:
            yield document.problem(("chat_template",), str(error).removeprefix("chat_template "))
    if not config.train_prompts:
        yield document.problem((), "no train_prompts: this config can be sampled, but not trained", severity="notice")
    if config.device.partition(":")[0] not in _DEVICES:
        yield document.problem(("device",), f"unknown device '{config.device}'", "use auto, cpu, cuda, cuda:0, … or mps")
    for key, package in (("tracker", config.tracker), ("quantize", config.quantize and "bitsandbytes")):
        if package and find_spec(package) is None:
            yield document.problem((key,), f"{package} is not installed here", f"run `pip install {package.replace('_ml', '-ml')}` "
                                   "where you train, or remove the setting", severity="notice")  # fmt: skip
    try:
        require_place(Path(config.output_dir))
    except MachineError as error:
        yield document.problem(("output_dir",), str(error))
    yield from _start(config, document)
    if has_finished_run(config):
        yield document.problem(("output_dir",), f"{config.output_dir} already contains a finished run",
                               "train with --more N to continue it, with --force to replace it, or choose another folder", severity="notice")  # fmt: skip


def has_finished_run(config: Config) -> bool:
    """Whether its output folder contains a finished run."""
    return exists(RunDir(Path(config.output_dir)).manifest)


def _start(config: Config, document: Document) -> Iterator[Problem]:
    """Problems with the adapter that a config continues from."""
    if not config.load_model or config.ckpt_dir is None:
        return
    start = Path(config.ckpt_dir)
    if real(start).is_relative_to(real(config.output_dir)):
        yield document.problem(
            ("ckpt_dir",), f"{start} is in the output_dir, which training empties first", "choose another output_dir"
        )
    elif RunDir(start).has_adapter:
        try:
            read_adapter_config(start / "adapter_config.json")
        except InputError as error:
            yield document.problem(("ckpt_dir",), str(error))
    elif exists(start):
        yield document.problem(("ckpt_dir",), f"{start} contains no adapter", "use the folder of a trained run")
    else:
        yield document.problem(
            ("ckpt_dir",), f"{start} does not exist yet", "first train the run that creates it", severity="notice"
        )


def instruction_problems(path: str, config: Config, chat: Chat) -> Iterator[Problem]:
    """Problems with the built-in retention instructions. Instructions in files are checked like other prompts."""
    from diffusecli.training.retention import read_instructions

    if not config.retain or config.retain.prompts != "builtin":
        return
    for instruction in read_instructions(config.retain):
        try:
            encode_prompt(instruction, chat)
        except InputError as error:
            yield Problem(path, f"retain: {error}")
            return
