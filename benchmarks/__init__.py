"""Benchmarks; results are in `docs/benchmarks.md`."""
