"""Vectors that learning begins from."""

from __future__ import annotations

import pytest
import torch

from depthtokens import UsageError
from depthtokens.prompt.tokens import random_vectors, vectors_from_words


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
