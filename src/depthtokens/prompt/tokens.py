"""Vectors in the place of words: how learned and random tokens begin."""

from __future__ import annotations

import torch
from torch import Tensor

from ..clip.load import FrozenCLIP
from ..errors import UsageError
from .scales import Token, Word, depth_words

STD = 0.02
"""Standard deviation of new vectors, that of CLIP's own token embeddings at its initialisation (released code)."""


def random_vectors(count: int, width: int, seed: int, stream: int) -> Tensor:
    """Vectors that learning starts from, or that stay random: drawn from N(0, 0.02²) (released code).

    Args:
        count: how many.
        width: of the text tower.
        seed: of the draw.
        stream: separates the draws of one seed: 0 for context vectors, 1 for depth vectors.

    Returns:
        [count, width] float32.
    """
    generator = torch.Generator().manual_seed((2 * seed + stream) % 2**63)
    return STD * torch.randn(count, width, generator=generator)


def vectors_from_words(clip: FrozenCLIP, spec: str | list[str] | tuple[str, ...], count: int) -> Tensor:
    """The token embeddings of words, for learning to start from; of a phrase, the mean over its tokens.

    Args:
        clip: whose vocabulary and token embedding.
        spec: the name of one of `scales.SCALES`, or words.
        count: how many there must be.

    Returns:
        [count, width] float32, on the CPU.

    Raises:
        UsageError: where there are not `count` words.
    """
    words = depth_words(spec).words
    if len(words) != count:
        raise UsageError(f"init needs one word or phrase for each of {count} tokens, '{spec}' has {len(words)}")
    weight = clip.text.embedding.weight.detach()
    return torch.stack([weight[word_ids(clip, word)].mean(dim=0) for word in words]).float().cpu()


def path_matrix(anchors: int, count: int) -> Tensor:
    """[count, anchors] weights that spread `count` points evenly over the piecewise-linear path through `anchors` points, ends included."""
    place = torch.linspace(0, anchors - 1, count, dtype=torch.float64)
    left = place.long().clamp(max=anchors - 2)
    matrix = torch.zeros(count, anchors, dtype=torch.float64)
    matrix[torch.arange(count), left] = 1 - (place - left)
    matrix[torch.arange(count), left + 1] = place - left
    return matrix.float()


def word_ids(clip: FrozenCLIP, word: Word) -> list[int]:
    """Vocabulary ids of a word or phrase, or the one id of a `Token`."""
    return [clip.tokenizer.token_id(word.text)] if isinstance(word, Token) else clip.tokenizer.ids(word)
