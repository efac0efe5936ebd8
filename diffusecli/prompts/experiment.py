"""An experiment: a config with its prompt files, and problems between them.

Knows configs and prompts as files. Knows nothing of models, devices and result folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusecli.files.paths import real
from diffusecli.files.positions import Location
from diffusecli.prompts.config import LEAST_INSTRUCTIONS
from diffusecli.prompts.config_files import Inspection
from diffusecli.prompts.config_overrides import at_its_option
from diffusecli.prompts.conflicts import Clash, clashes, conversation, trained_elsewhere
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import NOT_YET, files_at
from diffusecli.system.errors import Problem, Severity, many


@dataclass(frozen=True)
class Experiment:
    """A config with its prompt files."""

    file: Path
    inspection: Inspection
    problems: tuple[Problem, ...]  # of its paths
    prompts: tuple[Path, ...]
    trained: Mapping[Path, Location]  # the file itself -> where the config names it in train_prompts

    @classmethod
    def of(cls, file: Path, inspected: Inspection) -> Experiment:
        """Read every path of the config."""
        problems: list[Problem] = []
        prompts: list[Path] = []
        places: dict[Location, dict[Path, Location]] = {}
        if (document := inspected.document) is None:
            return cls(file, inspected, (), (), {})
        made_by = inspected.config.made_by if inspected.config is not None else None
        for key, paths in inspected.paths.items():
            named = places.setdefault(key, {})
            for index, path in ((index, path) for index, names in enumerate(paths) for path in names):
                _, files, message, remedy = files_at(path, made_by)
                if message:
                    severity: Severity = "notice" if message == NOT_YET else "error"
                    missing = document.problem((*key, index), f"{path} {message}", remedy, severity=severity)
                    problems.append(at_its_option(missing, (*key, index), inspected.overridden))
                if twice := [prompt for prompt in files if real(prompt) in named]:
                    remedy = "list it once"
                    problems.append(document.problem((*key, index), f"{twice[0]} is listed twice", remedy, severity="warning"))
                for prompt in files:
                    named.setdefault(real(prompt), (*key, index))
                prompts += files
            if (
                key == ("retain", "prompts")
                and len(named) < LEAST_INSTRUCTIONS
                and not any(files_at(path)[2] for names in paths for path in names)
            ):
                problems.append(document.problem(
                    key, f"has {many(len(named), 'instruction')}, but at least {LEAST_INSTRUCTIONS} are needed",
                    "add more (every third is only measured)",
                ))  # fmt: skip
        return cls(file, inspected, tuple(problems), tuple(prompts), places.get(("train_prompts",), {}))

    def clashes(self, there: Mapping[Path, Prompt]) -> list[Clash]:
        """Pairs of training prompts with the same conversation."""
        wordings = [wording for prompt in self.training(there) for wording in prompt.wordings]
        return list(clashes(wordings, (conversation(wording, self._system) for wording in wordings)))

    def training(self, there: Mapping[Path, Prompt]) -> list[Prompt]:
        """Its training prompts, as far as they can be read."""
        return [there[place] for place in self.trained if place in there]

    def untargeted(self, there: Mapping[Path, Prompt]) -> list[Prompt]:
        """Training prompts without targets."""
        return [prompt for prompt in self.training(there) if not prompt.targets]

    def of_training(self, there: Mapping[Path, Prompt]) -> Iterator[Problem]:
        """Problems of its prompts as a training set."""
        if (document := self.inspection.document) is None:
            return
        for prompt in self.untargeted(there):
            location = self.trained[real(prompt.alias)]
            yield document.problem(location, f"{prompt.alias} has no targets to train on", "move it to test_prompts")
        for clash in self.clashes(there):
            location = self.trained[real(clash.second.whole)]
            yield document.problem(location, f"{clash.second.alias} {clash.message}", clash.remedy, severity=clash.severity)
        yield from trained_elsewhere(self.training(there), self._system)

    @property
    def _system(self) -> str | None:
        return self.inspection.config.system if self.inspection.config is not None else None
