"""Training in several processes through accelerate: distribution of work, sums over processes, trackers, rank 0.

A plain run is one process. Under `accelerate launch` or `torchrun` every process has the model, the pieces of
a step are distributed, and gradients are summed (not averaged). So the result equals that of one process.
The first process writes files; the others get their contents from it, not from the disk.
An error in one process stops all of them. This module does not depend on prompts or losses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffusecli.models.architecture import trainable
from diffusecli.models.devices import choose_device, release_memory
from diffusecli.system.errors import DiffuseError, InputError, InterruptedRun, MachineError, first_line
from diffusecli.system.memory import out_of_memory

_LOST = (
    "Connection closed",
    "Connection reset",
    "Connection refused",
    "Broken pipe",
    "Socket",
    "Timed out waiting",
    "NCCL",
    "Gloo",
)
"""Parts of torch's messages when another process has ended; their class is RuntimeError."""

T = TypeVar("T")


class OutOfMemoryError(Exception):
    """A piece of work did not fit into memory, in this process or another."""


class FailedPieceError(Exception):
    """A piece of work failed with an error that the caller expects, in this process or another."""


Between = Callable[[int, int], None]
"""Called before each piece of work: the number of finished pieces, and of all."""


@dataclass(frozen=True)
class _Exchange:
    """What one process sends to all others: a value, or its error."""

    value: Any = None
    error: DiffuseError | None = None


@dataclass(frozen=True)
class Piece:
    """Work that one process can do alone, and its cost. `work(scale=…)` scales the gradient that it adds."""

    tokens: int
    work: Callable[..., Any]


class Processes:
    """One process of a training, and its communication with the others."""

    def __init__(self, device: str, tracker: str | None = None, folder: Path | None = None) -> None:
        """Join the other processes, if any. Raises `InputError` for an unknown device or a tracker that is not installed."""
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration

        together = int(os.environ.get("WORLD_SIZE", "1")) > 1
        wanted = choose_device(device)
        if tracker is not None:
            require_tracker(tracker)
        project = None if folder is None else ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "logs"))
        self._accelerator = Accelerator(cpu=wanted.type == "cpu", log_with=tracker, project_config=project)
        if self._accelerator.mixed_precision != "no":
            raise InputError("--mixed_precision: not supported. Set precision: bf16 in the config")
        self._tracked = tracker is not None
        self.device: torch.device = self._accelerator.device if together else wanted
        self.count: int = self._accelerator.num_processes
        self.rank: int = self._accelerator.process_index
        self.sharded = self.count > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
        self._spread = False  # whether the model is sharded, so that a pass needs all processes

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints for all."""
        return self.rank == 0

    def everyones(self, value: T) -> list[T]:
        """The value of each process, in order of ranks. Raises the error of another process, see `failing_together`."""
        return [word.value for word in self._exchanged(_Exchange(value))] if self.count > 1 else [value]

    def first(self, work: Callable[[], T]) -> T:
        """Run the work in the first process only and return its result in all. The others wait."""
        return self.everyones(work() if self.main else None)[0]  # type: ignore[return-value]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Raise an error inside this context in all processes, at the next value they exchange, so that none waits forever.

        Signals are not passed on, because launchers send them to every process. Errors during the passes of a sharded model
        are not either, because the others are exchanging tensors; they fail when the process ends.
        """
        try:
            yield
        except Exception as error:
            if self.count == 1 or isinstance(error, InterruptedRun) or (isinstance(error, DiffuseError) and error.shared):
                raise
            if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LOST):
                raise MachineError(
                    "another process of this training ended or does not answer. Read its output. To resume from the last checkpoint, run the "
                    "same command"
                ) from error
            if not self._spread:
                self._announce(error)
            raise

    def _announce(self, error: Exception) -> None:
        """Stop all other processes because of an error of this one."""
        unknown = MachineError(f"process {self.rank} failed: {type(error).__name__}: {error}")
        with suppress(DiffuseError, RuntimeError):  # this process raises its error itself
            self._exchanged(_Exchange(error=error if isinstance(error, DiffuseError) else unknown))
        if isinstance(error, DiffuseError):
            error.shared = True

    def _exchanged(self, word: _Exchange) -> list[_Exchange]:
        from accelerate.utils import gather_object

        words: list[_Exchange] = list(gather_object([word]))
        if error := next((word.error for word in words if word.error is not None), None):
            error.shared = True
            raise error
        return words

    def run(
        self, pieces: Sequence[Piece], between: Between = lambda _done, _of: None, expected: tuple[type[Exception], ...] = ()
    ) -> list[Any]:
        """Run each piece in one of the processes and return all results in all of them, in the order of the pieces.

        `between` is called before each piece with the number of finished pieces and of all of this process. Raises in every process
        `OutOfMemoryError` when one of them runs out of memory, and `FailedPieceError` when one has an `expected` error.
        """
        mine = _shares([piece.tokens for piece in pieces], self.count)[self.rank]
        found: dict[int, Any] = {}
        failure: Exception | None = None
        try:
            for done, index in enumerate(mine):
                between(done, len(mine))
                found[index] = pieces[index].work()
            if self.sharded and pieces:  # collective passes: every process needs the same number
                for _ in range(max(map(len, _shares([p.tokens for p in pieces], self.count))) - len(mine)):
                    pieces[0].work(scale=0.0)
        except Exception as error:
            if self.sharded or not (out_of_memory(error) or isinstance(error, expected)):
                raise
            failure = OutOfMemoryError() if out_of_memory(error) else FailedPieceError(first_line(error))
        if isinstance(failure, OutOfMemoryError):
            release_memory(self.device)
        everything = self.everyones((found, failure))
        if failed := next((failure for _, failure in everything if failure is not None), None):
            raise failed
        together = {index: result for results, _ in everything for index, result in results.items()}
        return [together[index] for index in range(len(pieces))]

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.count == 1:
            return
        for gradient in gradients:
            gradient.copy_(self._accelerator.reduce(gradient, reduction="sum"))

    def shard(self, model: Any) -> None:
        """Shard the frozen base over the processes (FSDP 2), layer by layer. Each keeps the whole adapter."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._spread = True
        adapter = set(trainable(model))
        for weight in adapter:
            weight.data = weight.data.to(self.device)
        mesh = init_device_mesh(self.device.type, (self.count,))
        layers = set(getattr(model.get_base_model(), "_no_split_modules", None) or [])
        for module in [*model.modules()]:
            if type(module).__name__ in layers:
                fully_shard(module, mesh=mesh, ignored_params=adapter)
        fully_shard(model, mesh=mesh, ignored_params=adapter)

    def start_tracking(self, settings: Mapping[str, Any]) -> None:
        """Start the tracker, if configured, with the run's settings."""
        if self._tracked:
            self._accelerator.init_trackers("diffuse", config=dict(settings))

    def track(self, figures: Mapping[str, float], step: int) -> None:
        """Send figures to the tracker, if configured."""
        if self._tracked:
            self._accelerator.log(dict(figures), step=step)

    def part(self) -> None:
        """Wait for the others and close the tracker. After that each process runs alone."""
        self.everyones(None)
        self._accelerator.end_training()
        self.count = 1


def _shares(costs: Sequence[int], processes: int) -> list[list[int]]:
    """Indices of the pieces of each process. The most expensive piece goes first to the process with the lowest load; order is kept.

    >>> _shares([5, 9, 4, 1], 2)
    [[1, 3], [0, 2]]
    """
    loads = [0] * processes
    shares: list[list[int]] = [[] for _ in range(processes)]
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        idlest = loads.index(min(loads))
        loads[idlest] += costs[index]
        shares[idlest].append(index)
    return [sorted(share) for share in shares]


def require_tracker(name: str) -> None:
    """Raises `InputError` for a tracker that is not installed."""
    from accelerate.tracking import get_available_trackers

    if name not in [getattr(found, "value", found) for found in get_available_trackers()]:
        raise InputError(f"tracker: {name} is not installed. Run `pip install {name.replace('_ml', '-ml')}` or remove the setting")
