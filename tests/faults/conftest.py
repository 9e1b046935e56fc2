"""What tests of faults share."""

from __future__ import annotations

import os

import pytest

collect_ignore = [] if hasattr(os, "fork") else ["test_verbs.py", "test_readers.py"]  # the processes that are disturbed are forked


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """The small world; as in `make faults`, but with few tries."""
    from faults.plan import Faults

    before = {name: os.environ.get(name) for name in ("DEPTHTOKENS_CACHE",)}
    yield Faults(tmp_path_factory.mktemp("faults"))
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
