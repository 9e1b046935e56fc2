"""Examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import depthtokens

ROOT = Path(depthtokens.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    found = doctest.testmod(importlib.import_module(".".join(part for part in parts if part != "__init__")))
    assert found.attempted and not found.failed
