"""Read and check training prompts: readable files, no contradicting conversations, lengths that fit the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffusecli.models.encoding import EncodedPrompt
from diffusecli.prompts.config import Retain
from diffusecli.prompts.conflicts import clashes, conversation, trained_elsewhere
from diffusecli.prompts.prompt import Prompt, require_own_names
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice
from diffusecli.training.loss import row_length
from diffusecli.training.retention import read_instructions


@dataclass(frozen=True)
class Inputs:
    """The prompts of a config, read and checked."""

    train: list[Prompt]
    test: list[Prompt]
    instructions: list[Prompt]  # for retention; empty when it is off


def read_inputs(
    train: Sequence[str], test: Sequence[str], retain: Retain | Literal[False], system: str | None, made_by: str | None = None
) -> Inputs:
    """Read prompt files and folders; `system` is the system prompt for prompts without one.

    Raises `InputError` for prompts that cannot be trained on. For missing files it names the command in `made_by`.
    """
    if not train:
        raise InputError("train_prompts is empty. Add at least one prompt file or folder")
    prompts = read_prompts(train, made_by)
    if empty := [prompt.alias for prompt in prompts if not prompt.targets]:
        raise InputError(f"{empty[0]}: has no targets to train on. Move it to test_prompts")
    wordings = [wording for prompt in prompts for wording in prompt.wordings]
    said = [conversation(wording, system) for wording in wordings]
    if wrong := [clash.problem() for clash in clashes(wordings, said) if not clash.agree]:
        raise InputError.of(wrong)
    if wrong := list(trained_elsewhere(prompts, system)):
        raise InputError.of(wrong)
    inputs = Inputs(prompts, read_prompts(test, made_by), read_instructions(retain) if retain else [])
    require_own_names([*inputs.train, *inputs.test, *inputs.instructions])
    return inputs


def require_agreement(encoded: Sequence[EncodedPrompt], notice: Notice) -> None:
    """Raises `InputError` when the chat template renders two prompts with different targets as the same conversation."""
    found = list(clashes((e.prompt for e in encoded), (e.prompt_ids for e in encoded)))
    if wrong := [clash.problem() for clash in found if not clash.agree]:
        raise InputError.of(wrong)
    for clash in found:
        notice(str(clash.problem()))


def require_context(encoded: Sequence[EncodedPrompt], context: int | None) -> None:
    """Raises `InputError` for a prompt whose longest target does not fit the model's context."""
    for e in encoded:
        if context is not None and row_length(e) > context:
            raise InputError(
                f"{e.alias}: the request with its longest target has {row_length(e)} tokens, but the model's context is {context}. Shorten the request"
            )
