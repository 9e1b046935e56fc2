"""Vectors that learning begins from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthtokens import UsageError
from depthtokens.prompt.tokens import path_matrix, random_vectors, vectors_from_words


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
