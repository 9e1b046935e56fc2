"""Human scales and the ways to say what fills {depth}."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthtokens import UsageError
from depthtokens.prompt.scales import SCALES, Token, depth_words


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


@pytest.mark.parametrize(("spec", "message"), [
    ("depth-8", "did you mean 'depth-7'"), ("learned", "say how many"), ("learned:1", "at least two"), ("random:x", "say how many"),
    (["near"], "at least two"), ("near||far", "none of them empty"), ([1.0, 2.0], "depth words are text"), (7, "or a list of words, not 7"),
    (None, "or a list of words"), (torch.zeros(2), "depth words are text"),
])  # fmt: skip
def test_bad_words(spec, message):
    with pytest.raises(UsageError, match=message):
        depth_words(spec)
