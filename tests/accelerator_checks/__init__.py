"""Tests on a pretended accelerator. `tests/test_accelerator.py` runs them, each module in a process of its own."""
