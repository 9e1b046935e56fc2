"""Training on few images: a part of a source, without new features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..depth.protocol import Protocol
from .source import SUBSET, Batch, Shown, Source, drawn


def subset(images: int, count: int, seed: int) -> list[int]:
    """`count` of so many images, drawn by the seed; a larger draw of the same seed holds the smaller ones."""
    return drawn(seed, 0, SUBSET).permutation(images)[:count].tolist()


class Subset:
    """So many images of a source of training views, others for each seed, so that models of several seeds train side by side.

    Attributes:
        name, split, depth_range, eval_crop: the source's.
        names: one for each image that is shown; which it is depends on the seed.

    Args:
        source: the whole.
        count: how many of its images.
    """

    def __init__(self, source: Source, count: int) -> None:
        self.source = source
        self.name, self.split, self.depth_range, self.eval_crop = source.name, source.split, source.depth_range, source.eval_crop
        self.names = [f"image {number} of the draw" for number in range(count)]

    def training(self, epoch: int, order: Sequence[int], batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """As `Source.training`, of the images that the seed draws."""
        chosen = subset(len(self.source.names), len(self.names), seed)
        return self.source.training(epoch, [chosen[index] for index in order], batch_size, seed)

    def evaluation(self, protocol: Protocol) -> Iterator[Shown]:
        """As `Source.evaluation`, of all images of the whole."""
        return self.source.evaluation(protocol)
