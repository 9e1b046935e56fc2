"""What each token is worth: the same tokens with one removed, merged with its neighbour or replaced by a word, or only two left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.model import DepthTokens
from ..depth.protocol import Head
from ..errors import unknown
from .neighbours import depth_features, depth_vectors

ALL, REMOVED, MERGED, REPLACED, PAIR = KINDS = ("all", "removed", "merged", "replaced", "pair")
PAIRS, SINGLE = 12, 32
"""Up to so many tokens every pair of them is scored alone, and every single one is removed, merged and replaced."""
Encode = Callable[[Tensor], Tensor]
"""From depth vectors [n, width] to the text features [n, C] of their sentences."""


@dataclass(frozen=True)
class Variant:
    """One set of sentences for depth bins, such as tokens after an ablation.

    Attributes:
        name: of its row in files, such as "removed 3" or "replaced 3 by close</w>".
        kind: one of `KINDS`, or of the kinds of rows in `study`.
        features: [M, C], L2-normalised.
        centres: [M] metres.
        tokens: of an ablation, the tokens concerned, as indices.
        word: of a replacement, the vocabulary's name for the word that came in, where it is known.
    """

    name: str
    kind: str
    features: Tensor
    centres: Tensor
    tokens: tuple[int, ...] = ()
    word: str | None = None

    def head(self, scale: float) -> Head:
        """The variant as a head of an evaluation, at the logit scale of the whole set of tokens."""
        text, centres = self.features.float(), self.centres.float()

        def head(patches: Tensor) -> Tensor:
            with torch.inference_mode(), torch.autocast(patches.device.type, enabled=False):
                logits = scale * torch.einsum("bchw,nc->bnhw", patches.float(), text.to(patches.device))
                return torch.einsum("bnhw,n->bhw", logits.softmax(dim=1), centres.to(patches.device))[:, None]

        return head


def chosen_ablations(model: DepthTokens, words: Tensor, names: Sequence[str]) -> tuple[list[Variant], str | None]:
    """The ablations of a model's tokens that are worth scoring.

    Args:
        model: the model.
        words: [N, C], text features of the word nearest to each token, in the model's own template.
        names: of those words.

    Returns:
        The ablations, and in words what was left out because there would be too many; None where nothing was.
    """
    features, centres, count = depth_features(model), model.centres, len(model.centres)
    vectors = depth_vectors(model).to(centres.device) if "depth" in model.tokens else None
    kinds = [REMOVED, MERGED, REPLACED, *([PAIR] if count <= PAIRS else [])]
    found = variants(features, centres, words, vectors, _encoder(model), kinds, names)
    left_out = None
    if count > PAIRS:
        near, far = int(centres.argmin()), int(centres.argmax())
        found.append(all_but_two(features, centres, near, far))
        left_out = f"of all pairs of {count} tokens only that of the nearest and the farthest bin was scored alone"
    if count > SINGLE:
        parts = {kind: [variant for variant in found if variant.kind == kind] for kind in kinds}
        few = {kind: np.linspace(0, len(part) - 1, SINGLE).round().astype(int) for kind, part in parts.items()}
        found = [parts[kind][i] for kind in kinds for i in few[kind]] + found[-1:]
        left_out = f"{left_out}; {SINGLE} evenly spaced tokens were removed, merged and replaced, not all"
    return found, left_out


def variants(
    features: Tensor,
    centres: Tensor,
    words: Tensor | None = None,
    vectors: Tensor | None = None,
    encode: Encode | None = None,
    kinds: Collection[str] = KINDS,
    names: Sequence[str] | None = None,
) -> list[Variant]:
    """The ablations of N tokens.

    "all": nothing changed. "removed i": without token i and its bin. "merged i+j": neighbours in depth become one token, see `merged`.
    "replaced i": token i gives way to a word. "pair i+j": all but two removed, N·(N − 1)/2 of them. Of two tokens none is removed or
    merged: one alone would be a constant.

    Args:
        features: [N, C], the tokens' text features, L2-normalised.
        centres: [N] metres.
        words: [N, C], text features of the word that replaces each token; None leaves replacements out.
        vectors: [N, width], for merging.
        encode: for merging.
        kinds: which ablations are wanted.
        names: of the words.

    Raises:
        UsageError: for a kind that is unknown.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("ablation", kind, KINDS)
    count = len(features)
    found = [Variant(ALL, ALL, features, centres)] if ALL in kinds else []
    if REMOVED in kinds and count > 2:
        found += [removed(features, centres, i) for i in range(count)]
    if MERGED in kinds and count > 2:
        found += [merged(features, centres, i, j, vectors, encode) for i, j in pairwise(centres.argsort().tolist())]
    if REPLACED in kinds and words is not None:
        found += [replaced(features, centres, i, words[i], names[i] if names else None) for i in range(count)]
    if PAIR in kinds and count > 2:
        found += [all_but_two(features, centres, i, j) for i, j in combinations(range(count), 2)]
    return found


def removed(features: Tensor, centres: Tensor, i: int) -> Variant:
    """Tokens with features [N, C] and centres [N] metres, without token i and its bin."""
    rest = [k for k in range(len(features)) if k != i]
    return Variant(f"{REMOVED} {i}", REMOVED, features[rest], centres[rest], (i,))


def merged(
    features: Tensor, centres: Tensor, i: int, j: int, vectors: Tensor | None = None, encode: Encode | None = None
) -> Variant:  # fmt: skip
    """Tokens i and j as one, in the place of i and in one bin at their mean depth.

    Args:
        features: [N, C], L2-normalised.
        centres: [N] metres.
        i: the token whose place is kept.
        j: the token that goes.
        vectors: [N, width]. Where these and `encode` are given, the mean of the two vectors is sent through the text tower; otherwise
            the one token is the mean of the two features.
        encode: the text tower, in the tokens' own sentence.
    """
    if vectors is not None and encode is not None:
        with torch.inference_mode():
            together = encode(vectors[[i, j]].mean(dim=0, keepdim=True))[0].to(features)
    else:
        together = features[[i, j]].mean(dim=0)
    merged_features, merged_centres = features.clone(), centres.clone()
    merged_features[i], merged_centres[i] = F.normalize(together, dim=0), centres[[i, j]].mean()
    rest = [k for k in range(len(features)) if k != j]
    return Variant(f"{MERGED} {i}+{j}", MERGED, merged_features[rest], merged_centres[rest], (i, j))


def replaced(features: Tensor, centres: Tensor, i: int, word: Tensor, name: str | None = None) -> Variant:
    """Tokens with features [N, C] and centres [N] metres, token i replaced by a word's features [C]; name: of the word."""
    changed = features.clone()
    changed[i] = F.normalize(word.to(features), dim=0)
    by = "" if name is None else f" by {name}"
    return Variant(f"{REPLACED} {i}{by}", REPLACED, changed, centres, (i,), name)


def all_but_two(features: Tensor, centres: Tensor, i: int, j: int) -> Variant:
    """Tokens i and j alone, of features [N, C] and centres [N] metres."""
    return Variant(f"{PAIR} {i}+{j}", PAIR, features[[i, j]], centres[[i, j]], (i, j))


def _encoder(model: DepthTokens) -> Encode:
    """The text tower, in the model's template with its learned context."""
    parsed = model.settings.parsed

    def encode(vectors: Tensor) -> Tensor:
        layout = model.encoder.layout([parsed.fill([parsed.contexts + i]) for i in range(len(vectors))])
        context = [model.tokens["context"]] if "context" in model.tokens else []
        return model.encoder.encode(layout, torch.cat([*context, vectors]))

    return encode
