"""The product on a pretended accelerator. It changes torch for a whole process, so each module of checks has its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.commands import HANG

CHECKS = sorted(path.name for path in Path(__file__).with_name("accelerator_checks").glob("check_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_the_product_is_right_on_an_accelerator(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "checks"),
         f"tests/accelerator_checks/{name}"],
        cwd=ROOT, capture_output=True, text=True, timeout=HANG, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert " passed" in done.stdout
