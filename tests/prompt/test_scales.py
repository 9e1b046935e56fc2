"""Human scales and the ways to say what fills {depth}."""

from __future__ import annotations

import pytest

from depthtokens import UsageError
from depthtokens.prompt.scales import SCALES, Token, depth_words


def test_scales():
    assert {name: len(words) for name, words in SCALES.items()} == dict.fromkeys(SCALES, 7)
    assert SCALES["depth-7"][3] == "neither close nor distant" and SCALES["depthclip"][0] == "giant"
    assert all(isinstance(word, Token) for word in SCALES["rand-txt-7"])
    assert depth_words("learned:20").count == 20 and depth_words("random:7").kind == "random"
    assert depth_words("near | far").words == depth_words(["near", "far"]).words == ("near", "far")


@pytest.mark.parametrize(("spec", "message"), [
    ("depth-8", "did you mean 'depth-7'"), ("learned", "say how many"), ("learned:1", "at least two"), ("random:x", "say how many"),
    (["near"], "at least two"), ("near||far", "none of them empty"),
])  # fmt: skip
def test_bad_words(spec, message):
    with pytest.raises(UsageError, match=message):
        depth_words(spec)
