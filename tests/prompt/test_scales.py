"""Human scales and the ways to say what fills {depth}."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthtokens import UsageError
from depthtokens.prompt.scales import SCALES, Token, depth_words, numbers


def test_scales():
    assert {name: len(words) for name, words in SCALES.items()} == dict.fromkeys(SCALES, 7)
    assert SCALES["depth-7"][3] == "neither close nor distant" and SCALES["depthclip"][0] == "giant"
    assert all(isinstance(word, Token) for word in SCALES["rand-txt-7"])
    assert depth_words("learned:20").count == 20 and depth_words("random:7").kind == "random"
    assert depth_words("near | far").words == depth_words(["near", "far"]).words == ("near", "far")


def test_words_of_any_kind_of_list():
    words = depth_words(("near", "far"))
    assert depth_words(np.array(["near", "far"])) == depth_words(word for word in ("near", " far")) == words
    assert all(type(word) is str for word in depth_words(np.array(["near", "far"])).words)
    assert depth_words(np.str_("learned:3")) == depth_words("learned:3")
    assert depth_words([Token("inian"), "far"]).words == (Token("inian"), "far")


def test_numbers_as_words():
    assert numbers([0.7151, 2.1434, 9.96, 12.5, 80.0]) == ("0.72 metres", "2.1 metres", "10 metres", "12 metres", "80 metres")
    assert numbers([0.00123, 150.0]) == ("0.0012 metres", "150 metres")  # never 1.5e+02
    assert numbers([1.01, 1.04, 2.0]) == ("1.01 metres", "1.04 metres", "2.00 metres")  # neighbours differ
    assert depth_words("metres:9").count == 9 and depth_words("metres:9").kind == "words"


@pytest.mark.parametrize(("spec", "message"), [
    ("depth-8", "did you mean 'depth-7'"), ("learned", "say how many"), ("learned:1", "at least two"), ("random:x", "say how many"),
    ("metres", "as in 'metres:7'"),
    (["near"], "at least two"), ("near||far", "none of them empty"), ([1.0, 2.0], "depth words are text"), (7, "or a list of words, not 7"),
    (None, "or a list of words"), (torch.zeros(2), "depth words are text"),
])  # fmt: skip
def test_bad_words(spec, message):
    with pytest.raises(UsageError, match=message):
        depth_words(spec)
