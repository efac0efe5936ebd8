"""Part of `gpu`: loss and gradient of a step, packed compared with rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_models import Shape, random_model, targets, with_adapter
from benchmarks.workbench import seconds
from diffusecli.models.architecture import trainable
from diffusecli.models.devices import peak_memory_mb
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel
from diffusecli.training.flat_weights import FlatWeights
from diffusecli.training.loss import Pass, score
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.rows_pass import RowsPass

ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Part:
    """What a part works with."""

    device: torch.device
    shapes: dict[str, Shape]
    tiny: bool
    ends: float  # on the clock of `time.monotonic`
    compiles: bool = False  # whether to compare with torch.compile

    @property
    def left(self) -> float:
        """Seconds that are left of its share."""
        return self.ends - time.monotonic()

    def require_time(self) -> None:
        """Raise `RuntimeError` when its share is spent."""
        if self.left <= 0:
            raise RuntimeError("stopped, because the time of this part is spent")

    def sync(self) -> None:
        """Wait for the device."""
        if self.device.type != "cpu" and torch.accelerator.is_available():
            torch.accelerator.synchronize(self.device)

    def timed(self, action: Callable[[], Any], repeats: int = 1) -> float:
        """The lowest time of an action, in seconds."""

        def whole() -> None:
            action()
            self.sync()

        self.sync()
        return seconds(whole, repeats)


def steps(part: Part, so_far: dict[str, Any]) -> list[dict[str, Any]]:
    """Loss and gradient of a step, packed and in rows."""
    rate = so_far["rate"].get("bf16", float("nan"))
    print(
        "| model | targets | packed: tokens, s/step, tokens/s, share of the rate, GB | rows: tokens, s/step, GB | time | largest difference, nats |"
    )
    print("|---|---|---|---|---|---|")
    found: list[dict[str, Any]] = []
    for size, shape in part.shapes.items():
        if part.left <= 0:
            found.append(left_out(size))
            continue
        base = with_adapter(random_model(shape, part.device))
        weights = FlatWeights.of(trainable(base.model))
        for name, encoded in targets().items():
            if part.left <= 0:
                found.append(left_out(f"{size}, {name}"))
                continue
            found.append(
                {"model": size, "targets": name, "parameters": base.parameters, **_compared(part, base, encoded, weights, rate)}
            )
            print(_step_line(found[-1]), flush=True)
        del base, weights
        if part.device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def _compared(part: Part, base: LoadedModel, encoded: EncodedPrompt, weights: FlatWeights, rate: float) -> dict[str, Any]:
    strategy, why = choose_pass(base.model, encoded)
    packed = _measured(part, base, encoded, weights, strategy, 3)
    flops = 4 * base.parameters * packed["tokens"] / packed["seconds"]  # forward, and backward for the inputs only
    found: dict[str, Any] = {"why": why, "packed": packed, "tokens_per_second": round(packed["tokens"] / packed["seconds"])}
    found["share_of_rate"] = round(flops / 1e12 / rate, 3)
    if part.left <= 0 or "drawn" in encoded.alias:  # a row per drawn path has no probabilities of their siblings
        return found
    found["rows"] = _measured(part, base, encoded, weights, RowsPass(ROWS_AT_ONCE), 1)
    gap = np.abs(np.array(found["rows"].pop("log_probs")) - np.array(packed.pop("log_probs"))).max()
    return {**found, "difference": float(f"{gap:.2g}")}


def _measured(
    part: Part, base: LoadedModel, encoded: EncodedPrompt, weights: FlatWeights, strategy: Pass, repeats: int
) -> dict[str, Any]:
    kept: list[Any] = []

    def step() -> None:
        kept[:] = [score(base.model, encoded, strategy, backward=True)]
        weights.clear()

    if part.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(part.device)
    if isinstance(strategy, PackedPass):
        step()  # warm up
    took = part.timed(step, repeats)
    return {
        "tokens": kept[0].tokens_fed, "seconds": float(f"{took:.4g}"), "gb": round(peak_memory_mb() / 1e3, 2),
        "log_probs": kept[0].log_probs.tolist(),
    }  # fmt: skip


def _step_line(row: dict[str, Any]) -> str:
    for side in ("packed", "rows"):
        row.get(side, {}).pop("log_probs", None)
    packed, rows = row["packed"], row.get("rows")
    own = f"{packed['tokens']}, {packed['seconds']:.3g}, {row['tokens_per_second']}, {row['share_of_rate']:.0%}, {packed['gb']}"
    other = (
        f"{rows['tokens']}, {rows['seconds']:.3g}, {rows['gb']} | {rows['seconds'] / packed['seconds']:.1f}x | {row['difference']}"
        if rows
        else "- | - | -"
    )
    return f"| {row['model']} | {row['targets']} | {own} | {other} |"


def left_out(what: str) -> dict[str, Any]:
    """Say that something is left out for lack of time."""
    print(f"left out, because the time of this part is spent: {what}", flush=True)
    return {"left_out": what}
