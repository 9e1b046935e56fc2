"""Objectives by name."""

from __future__ import annotations

import pytest

from depthtokens import UsageError
from depthtokens.depth.objective import Objective


def test_objectives():
    assert Objective.read("silog") == Objective() and Objective().term is None
    assert Objective.read("silog+ce") == Objective("ce", 0.5) and Objective.read("silog+ordinal:2") == Objective("ordinal", 2.0)


@pytest.mark.parametrize(("text", "message"), [
    ("silog+cr", "did you mean 'silog+ce'"), ("silog:1", "a weight is for what stands beside SILog"), ("silog+ce:", "a positive number"),
    ("silog+ce:0", "a positive number"), ("silog+ordinal:inf", "as in 'silog+ordinal:0.5'"), ("", "unknown objective"),
])  # fmt: skip
def test_what_is_no_objective(text, message):
    with pytest.raises(UsageError) as caught:
        Objective.read(text)
    assert message in str(caught.value)
