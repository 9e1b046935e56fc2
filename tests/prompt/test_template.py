"""Templates, scales, initial vectors and bins: the paper's words and numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import UsageError
from depthtokens.depth.bins import bin_centres
from depthtokens.prompt.scales import SCALES, Token, depth_words
from depthtokens.prompt.template import TEMPLATES, parse_template
from depthtokens.prompt.tokens import random_vectors, vectors_from_words

NYU = (0.001, 10.0)


@pytest.mark.parametrize(("name", "contexts", "pieces"), [
    ("baseline", 0, ("This object appears to be", None)),
    ("depthclip", 0, ("This object is", None)),
    ("1o1d", 2, (0, "object", 1, None)),
    ("1o2d", 3, (0, "object", 1, 2, None)),
    ("4o4d", 8, (0, 1, 2, 3, "object", 4, 5, 6, 7, None)),
])  # fmt: skip
def test_the_paper_s_templates(name, contexts, pieces):
    template = parse_template(name)
    assert (template.contexts, template.pieces) == (contexts, pieces)
    assert parse_template(TEMPLATES[name]) == template


def test_own_templates():
    assert parse_template("a {depth} {ctx*2} thing.").pieces == ("a", None, 0, 1, "thing.")
    assert parse_template("{ctx}{ctx} {depth}") == parse_template("{ctx}{ctx} {depth}")
    assert parse_template("{ctx*2}{depth}").pieces == (0, 1, None)
    assert parse_template("a {depth} b").fill(["very", 3]) == ["a", "very", 3, "b"]


@pytest.mark.parametrize(("text", "message"), [
    ("baselin", "did you mean 'baseline'"),
    ("This object is near", "has no {depth}"),
    ("{ctx} object", "exactly once, it has it 0 times"),
    ("{depth} and {depth}", "2 times"),
    ("a {word} {depth}", "unknown slot {word}"),
    ("{ctx*0} {depth}", "unknown slot"),
])  # fmt: skip
def test_bad_templates(text, message):
    with pytest.raises(UsageError) as caught:
        parse_template(text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


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


def test_initial_vectors(tiny_clip):
    vectors = random_vectors(400, 512, seed=3, stream=1)
    assert vectors.std() == pytest.approx(0.02, rel=0.02) and abs(vectors.mean()) < 1e-4
    assert torch.equal(vectors, random_vectors(400, 512, seed=3, stream=1))
    assert not torch.equal(vectors, random_vectors(400, 512, seed=3, stream=0))
    assert not torch.equal(vectors, random_vectors(400, 512, seed=4, stream=0))
    words = vectors_from_words(tiny_clip, "depth-7", 7)
    weight = tiny_clip.text.embedding.weight
    assert torch.equal(words[1], weight[tiny_clip.tokenizer.ids("close")[0]])
    assert torch.allclose(words[0], weight[tiny_clip.tokenizer.ids("very close")].mean(dim=0))
    with pytest.raises(UsageError, match="each of 20 tokens, 'depth-7' has 7"):
        vectors_from_words(tiny_clip, "depth-7", 20)


def test_bins():
    assert bin_centres("linear:4", 4, (0.5, 4.5)) == pytest.approx((1.0, 2.0, 3.0, 4.0))
    assert bin_centres("log", 2, (1.0, 16.0)) == pytest.approx((2.0, 8.0))
    assert bin_centres("const80", 7, NYU) == pytest.approx(bin_centres("log", 7, (0.001, 80.0)))
    assert bin_centres("depthclip", 7, NYU) == (1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0)
    assert bin_centres("1|1.5|2", 3, NYU) == bin_centres([1, 1.5, 2], 3, NYU) == (1.0, 1.5, 2.0)


@given(st.integers(2, 300), st.floats(1e-3, 1), st.floats(2, 100), st.sampled_from(["linear", "log"]))
def test_bins_lie_inside_the_range_in_order(count, lo, hi, name):
    centres = bin_centres(f"{name}:{count}", count, (lo, hi))
    assert len(centres) == count and lo < centres[0] and centres[-1] < hi
    steps = [math.log(c) if name == "log" else c for c in centres]
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert min(gaps) > 0 and max(gaps) == pytest.approx(min(gaps), rel=1e-6)


@pytest.mark.parametrize(("spec", "count", "message"), [
    ("linar:7", 7, "did you mean 'linear'"), ("linear:7", 8, "8 depth words or tokens need 8 bins"), ("log:x", 7, "write a count"),
    ("1|2|30", 3, "outside the depth range"), ("1|b", 2, "centres are numbers"), ([1, 2, 3], 7, "makes 3"),
])  # fmt: skip
def test_bad_bins(spec, count, message):
    with pytest.raises(UsageError, match=message):
        bin_centres(spec, count, NYU)
    with pytest.raises(UsageError, match="needs 0 < lo < hi"):
        bin_centres("linear", 7, (10.0, 1.0))
