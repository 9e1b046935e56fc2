"""Which words lie near what was learned: distances between prompt embeddings (paper, table 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.model import DepthTokens
from ..prompt.scales import Token
from ..prompt.template import parse_template


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token, or another learned token as "{depth_3}", and the Euclidean distance of its prompt's embedding."""

    name: str
    distance: float


def nearest_words(
    model: DepthTokens, vocabulary: Sequence[str], count: int = 5, template: str = "baseline", chunk: int = 512
) -> list[list[Neighbour]]:
    """The `count` nearest neighbours of each learned token, nearest first.

    Every vocabulary entry is put into `template`, embedded and L2-normalised, and compared with the model's own text features [N, C];
    as in the paper, learned tokens are neighbours of each other too.
    """
    parsed = parse_template(template)
    rows: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(vocabulary), chunk):
            layout = model.encoder.layout([parsed.fill([Token(word)]) for word in vocabulary[start : start + chunk]])
            rows.append(F.normalize(model.encoder.encode(layout), dim=-1))
        learned = model.text_features()
        distances = torch.cdist(learned, torch.cat([learned, *rows]))
    distances.fill_diagonal_(float("inf"))  # a token is not its own neighbour
    names = [*(f"{{depth_{i}}}" for i in range(len(learned))), *vocabulary]
    values, order = distances.topk(count, largest=False)
    return [[Neighbour(names[j], d) for d, j in zip(*row, strict=True)] for row in zip(values.tolist(), order.tolist(), strict=True)]
