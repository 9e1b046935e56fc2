"""What the page tells of tokens, learned and human, many and two."""

from __future__ import annotations

import pytest

from depthtokens import DepthTokens
from depthtokens.demo import TOKENS
from depthtokens.deploy.app import facts as module
from depthtokens.deploy.app.facts import Facts
from helpers import make_model


@pytest.fixture(scope="module")
def model():
    return DepthTokens.load(TOKENS)


def test_the_demonstrations_tokens(model, monkeypatch):
    facts, told = Facts(model), []
    assert facts.shape.count("data:image/png") == 2 and "rank correlation with depth" in facts.shape
    near = facts.neighbours(lambda label, done, total, note="": told.append((done, total)))
    assert near.count("<tr><td>depth_") == 7 and told[-1][0] == told[-1][1] and "has seen in training" in near
    monkeypatch.setattr(module, "nearest_words", None)
    assert facts.neighbours() == near  # kept


def test_two_words(model):
    facts = Facts(make_model(model.clip, depth=["near", "far"]))
    assert facts.shape.count("data:image/png") == 1 and "no path" in facts.shape
