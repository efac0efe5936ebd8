"""What share of the machine's matrix-multiply rate a packed step reaches as useful work.

Useful: 4 x parameters x distinct tokens (prompt and internal nodes, once each) a step. Product and step
take turns, and shares are of neighbours in time, so that a machine that slows down slows both.
"""

from __future__ import annotations

import statistics

from benchmarks.packing import PROMPTS, packed_way
from benchmarks.workbench import adapted_model, encode, matmul_gflops, seconds
from diffusecli.training.loss import score

TURNS = 9


def main() -> None:
    """Print the median of nine shares per prompt, and the best."""
    base = adapted_model()
    print("| targets | useful tokens | s/step | useful GFLOP/s | product GFLOP/s | share (median) | best |")
    print("|---|---|---|---|---|---|---|")
    for name, path in PROMPTS.items():
        encoded = encode(base, path)
        way = packed_way(base, encoded)
        useful = len(encoded.prompt_ids) + len(encoded.trie.internal)
        score(base.model, encoded, way, backward=True)
        took, products = [], []
        for _ in range(TURNS):
            products.append(matmul_gflops())
            took.append(seconds(lambda e=encoded, w=way: score(base.model, e, w, backward=True)))  # type: ignore[misc]
        rates = [4 * base.parameters * useful / t / 1e9 for t in took]
        shares = sorted(rate / product for rate, product in zip(rates, products, strict=True))
        print(
            f"| {name} | {useful} | {statistics.median(took):.2f} | {statistics.median(rates):.0f} | {statistics.median(products):.0f} "
            f"| {statistics.median(shares):.0%} | {shares[-1]:.0%} |",
            flush=True,
        )
