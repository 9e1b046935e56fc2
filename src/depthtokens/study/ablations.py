"""What each token is worth: the same tokens with one removed, merged with its neighbour or replaced by a word, or only two left."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import unknown
from ..experiment.evaluate import Row

KINDS = ("all", "removed", "merged", "replaced", "pair")


@dataclass(frozen=True)
class Variant:
    """Tokens after an ablation: text features [M, C], L2-normalised, and bin centres [M] metres.

    kind: one of `KINDS`. name: the same with the tokens concerned, such as "removed 3".
    """

    name: str
    kind: str
    features: Tensor
    centres: Tensor

    def row(self, scale: float) -> Row:
        """The variant as a row of an evaluation (`experiment.evaluate.score_rows`), at the logit scale of the whole set of tokens."""
        text, centres = self.features.float(), self.centres.float()

        def row(patches: Tensor) -> Tensor:
            with torch.inference_mode(), torch.autocast(patches.device.type, enabled=False):
                logits = scale * torch.einsum("bchw,nc->bnhw", patches.float(), text.to(patches.device))
                return torch.einsum("bnhw,n->bhw", logits.softmax(dim=1), centres.to(patches.device))[:, None]

        return row


def variants(
    features: Tensor,
    centres: Tensor,
    words: Tensor | None = None,
    vectors: Tensor | None = None,
    encode: Callable[[Tensor], Tensor] | None = None,
    kinds: Collection[str] = KINDS,
) -> list[Variant]:
    """The ablations of N tokens with text features [N, C] and centres [N] metres, of those kinds.

    "all": nothing changed. "removed i": without token i and its bin. "merged i+j": neighbours in depth become one token in one bin at
    their mean depth; the token is the mean of the two vectors [N, width] sent through `encode` (vectors [1, width] -> features
    [1, C]) where both are given, otherwise the mean of the two features. "replaced i": token i gives way to its nearest word,
    words [N, C], if given. "pair i+j": all but two removed, N·(N − 1)/2 of them. Features come out L2-normalised. Of two tokens none
    is removed or merged: one alone would be a constant.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("ablation", kind, KINDS)
    count = len(features)
    found = [Variant("all", "all", features, centres)] if "all" in kinds else []
    if "removed" in kinds and count > 2:
        found += [removed(features, centres, i) for i in range(count)]
    if "merged" in kinds and count > 2:
        found += [merged(features, centres, i, j, vectors, encode) for i, j in pairwise(centres.argsort().tolist())]
    if "replaced" in kinds and words is not None:
        found += [replaced(features, centres, i, words[i]) for i in range(count)]
    if "pair" in kinds and count > 2:
        found += [all_but_two(features, centres, i, j) for i, j in combinations(range(count), 2)]
    return found


def removed(features: Tensor, centres: Tensor, i: int) -> Variant:
    """Without token i and its bin."""
    rest = [k for k in range(len(features)) if k != i]
    return Variant(f"removed {i}", "removed", features[rest], centres[rest])


def merged(
    features: Tensor, centres: Tensor, i: int, j: int, vectors: Tensor | None = None, encode: Callable[[Tensor], Tensor] | None = None
) -> Variant:  # fmt: skip
    """Tokens i and j as one, in the place of i: see `variants`."""
    if vectors is not None and encode is not None:
        with torch.inference_mode():
            together = encode(vectors[[i, j]].mean(dim=0, keepdim=True))[0].to(features)
    else:
        together = features[[i, j]].mean(dim=0)
    merged_features, merged_centres = features.clone(), centres.clone()
    merged_features[i], merged_centres[i] = F.normalize(together, dim=0), centres[[i, j]].mean()
    rest = [k for k in range(len(features)) if k != j]
    return Variant(f"merged {i}+{j}", "merged", merged_features[rest], merged_centres[rest])


def replaced(features: Tensor, centres: Tensor, i: int, word: Tensor) -> Variant:
    """Token i replaced by a word's features [C]."""
    changed = features.clone()
    changed[i] = F.normalize(word.to(features), dim=0)
    return Variant(f"replaced {i}", "replaced", changed, centres)


def all_but_two(features: Tensor, centres: Tensor, i: int, j: int) -> Variant:
    """Tokens i and j alone."""
    return Variant(f"pair {i}+{j}", "pair", features[[i, j]], centres[[i, j]])
