"""Templates, scales and initial vectors: the paper's words and numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthtokens import UsageError
from depthtokens.prompt.scales import SCALES, Token, depth_words
from depthtokens.prompt.template import TEMPLATES, parse_template
from depthtokens.prompt.tokens import path_matrix, random_vectors, vectors_from_words


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
    ("{ctx*100} {depth}", "unknown slot"),
    ("{ctx*99999999999} {depth}", "unknown slot"),
    ("a {depth} b}", "a brace without its other half in 'b}'"),
    ("{ctx", "a brace without its other half in '{ctx'"),
    ("}{depth}", "a brace without its other half"),
    ("{{depth}}", "a brace without its other half"),
    ("{ctx {depth}", "a brace without its other half in '{ctx'"),
    (None, "a template is text"),
    (5, "a template is text"),
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


def test_words_of_any_kind_of_list():
    words = depth_words(("near", "far"))
    assert depth_words(np.array(["near", "far"])) == depth_words(word for word in ("near", " far")) == words
    assert all(type(word) is str for word in depth_words(np.array(["near", "far"])).words)
    assert depth_words(np.str_("learned:3")) == depth_words("learned:3")
    assert depth_words([Token("inian"), "far"]).words == (Token("inian"), "far")
    assert parse_template(np.str_("a {depth}")) == parse_template("a {depth}")


@pytest.mark.parametrize(("spec", "message"), [
    ("depth-8", "did you mean 'depth-7'"), ("learned", "say how many"), ("learned:1", "at least two"), ("random:x", "say how many"),
    (["near"], "at least two"), ("near||far", "none of them empty"), ([1.0, 2.0], "depth words are text"), (7, "or a list of words, not 7"),
    (None, "or a list of words"), (torch.zeros(2), "depth words are text"),
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
    with pytest.raises(UsageError, match=r"without any token .*: '\\x01'"):  # the mean over no tokens is NaN
        vectors_from_words(tiny_clip, ["near", "\x01"], 2)


def test_vectors_that_cannot_be():
    assert torch.equal(random_vectors(3, 8, np.int64(2**62), 1), random_vectors(3, 8, 2**62, 1))
    for arguments in ((3, 8, 1.5), (3, 8, "1"), (0, 8, 1), (3, 0, 1)):
        with pytest.raises(UsageError, match=r"whole number|cannot be drawn"):
            random_vectors(*arguments, stream=0)
    for anchors, count in ((1, 5), (0, 0), (5, 4)):
        with pytest.raises(UsageError, match="at least two anchors"):
            path_matrix(anchors, count)
