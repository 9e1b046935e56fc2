"""Faults on purpose, a few of each; `make faults` tries many. Allowed is what comes out undisturbed, or one line that says why not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers import TESTS

pytestmark = [
    pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are disturbed are forked"),
]  # fmt: skip


@pytest.mark.parametrize("part", ["commands", "files"])
def test_a_few_of_each(tmp_path, part):
    """In a process of its own: one that has trained cannot be forked."""
    words = [sys.executable, "-m", "faults", "--few", "--part", part, "--log", str(tmp_path / "log.jsonl")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and done.stdout.startswith("| fault |"), done.stdout + done.stderr
