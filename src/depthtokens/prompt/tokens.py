"""Vectors in the place of words: how learned and random tokens begin."""

from __future__ import annotations

import operator
from collections.abc import Sequence

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

    Raises:
        UsageError: for a seed that is no whole number, or no vectors at all.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise UsageError(f"a seed is a whole number, not {seed!r}") from None
    if count < 1 or width < 1:
        raise UsageError(f"{count} vectors of width {width} cannot be drawn: at least one of each")
    generator = torch.Generator().manual_seed((2 * number + stream) % 2**63)
    return STD * torch.randn(count, width, generator=generator)


def vectors_from_words(clip: FrozenCLIP, spec: str | Sequence[Word], count: int) -> Tensor:
    """The token embeddings of words, for learning to start from; of a phrase, the mean over its tokens.

    Args:
        clip: whose vocabulary and token embedding.
        spec: the name of one of `scales.SCALES`, or words.
        count: how many there must be.

    Returns:
        [count, width] float32, on the CPU.

    Raises:
        UsageError: where there are not `count` words, or one of them has no token.
    """
    words = depth_words(spec).words
    if len(words) != count:
        raise UsageError(f"init needs one word or phrase for each of {count} tokens, '{spec}' has {len(words)}")
    ids = [word_ids(clip, word) for word in words]
    if empty := [str(word) for word, found in zip(words, ids, strict=True) if not found]:
        raise UsageError(f"init has a word without any token of this CLIP's vocabulary: {empty[0]!r}")
    return torch.stack([clip.text.lookup(found).mean(dim=0) for found in ids]).float().cpu()


def path_matrix(anchors: int, count: int) -> Tensor:
    """[count, anchors] weights that spread `count` points evenly over the piecewise-linear path through `anchors` points, ends included.

    Raises UsageError unless there are at least two anchors, and no fewer points.
    """
    if not 2 <= anchors <= count:
        raise UsageError(f"a path of {count} points through {anchors} anchors: at least two anchors, and no fewer points")
    place = torch.linspace(0, anchors - 1, count, dtype=torch.float64)
    left = place.long().clamp(max=anchors - 2)
    matrix = torch.zeros(count, anchors, dtype=torch.float64)
    matrix[torch.arange(count), left] = 1 - (place - left)
    matrix[torch.arange(count), left + 1] = place - left
    return matrix.float()


def word_ids(clip: FrozenCLIP, word: Word, first: bool = False) -> list[int]:
    """Vocabulary ids of a word or phrase, or the one id of a `Token`.

    Args:
        clip: whose vocabulary.
        word: the word.
        first: whether a prompt begins with it; some tokenizers have another entry for it then.

    Raises:
        UsageError: for a `Token` that is not in the vocabulary.
    """
    return [clip.tokenizer.token_id(word.text)] if isinstance(word, Token) else clip.tokenizer.ids(word, first)


def has_words(clip: FrozenCLIP, words: Sequence[Word]) -> bool:
    """Whether a CLIP's vocabulary has all the `Token`s among words: those of the hand-made scales are CLIP's BPE's."""
    try:
        for word in words:
            word_ids(clip, word)
    except UsageError:
        return False
    return True
