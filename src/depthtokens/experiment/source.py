"""Where training and evaluation get patch features from: images, now, or a store, where they were computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..data.sample import Sample
from ..depth import protocol as protocols
from ..errors import UsageError
from ..features.views import Views
from ..features.store import FeatureStore
from .config import Experiment


class Batch(NamedTuple):
    """Training views: patches [B, C, h, w] float32 and truth [B, 1, H, W] metres, 0 = none."""

    patches: Tensor
    truth: Tensor


class Shown(NamedTuple):
    """Test images of one size. indices: in the data set; patches [B, C, h, w]; mirrored: of the mirror images, None without flip averaging.

    truth: [B, 1, H, W] metres of the whole images, on the CPU.
    """

    indices: list[int]
    patches: Tensor
    mirrored: Tensor | None
    truth: Tensor


class Source(Protocol):
    """Patch features and ground truth of a data set, by the names and properties of that data set."""

    name: str
    split: str
    names: list[str]
    depth_range: tuple[float, float]
    eval_crop: str | None

    def training(self, epoch: int, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """Batches of an epoch's views in the order given."""
        ...

    def evaluation(self, protocol: protocols.Protocol) -> Iterator[Shown]:
        """All images in order, as the protocol shows them."""
        ...


class Images:
    """Features computed now: encode makes them of normalised images [B, 3, H, W]. views: see `Experiment.views`."""

    def __init__(
        self, dataset: DepthDataset, encode: Callable[[Tensor], Tensor], *, views: int = 0, batch_size: int = 4, workers: int = 2
    ) -> None:
        self.dataset, self.encode, self.views, self.batch_size, self.workers = dataset, encode, views, batch_size, workers
        self.name, self.split, self.names = dataset.name, dataset.split, dataset.names
        self.depth_range, self.eval_crop = dataset.depth_range, dataset.eval_crop

    def training(self, epoch: int, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """See `Source`. Raises UsageError where views differ in size."""
        self.dataset.epoch = epoch % self.views if self.views else epoch
        for samples in batches(self.dataset, order, batch_size, self.workers):
            shapes = {tuple(sample.image.shape[1:]) for sample in samples}
            if len(shapes) > 1:
                sizes = ", ".join(f"{h}x{w}" for h, w in sorted(shapes)[:3])
                raise UsageError(f"training images differ in size ({sizes}): give --crop HEIGHT WIDTH")
            patches = self.encode(torch.stack([sample.image for sample in samples]))
            yield Batch(patches, torch.stack([sample.depth for sample in samples]).to(patches.device))

    def evaluation(self, protocol: protocols.Protocol) -> Iterator[Shown]:
        """See `Source`. Images of another size start a new batch."""
        for samples in batches(self.dataset, range(len(self.dataset)), self.batch_size, self.workers):
            for group in _same_size(samples):
                images = protocol.shown(torch.stack([sample.image for sample in group]))
                mirrored = self.encode(images.flip(-1)) if protocol.flip else None
                yield Shown([s.index for s in group], self.encode(images), mirrored, torch.stack([s.depth for s in group]))


class Stored:
    """Features of one dense mode from a store. flip: show half of the training views mirrored (the store must hold mirror images)."""

    def __init__(
        self, store: FeatureStore, mode: str, *, device: torch.device | str = "cpu", flip: bool = False, seed: int = 42, batch_size: int = 8
    ) -> None:
        store.expect(mode=mode)
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size}: needs at least 1")
        if flip and not store.views.mirrored:
            raise UsageError(f"{store.path} holds no mirror images to train on")
        self.store, self.mode, self.device, self.flip, self.seed, self.batch_size = (
            store,
            mode,
            torch.device(device),
            flip,
            seed,
            batch_size,
        )
        self.name, self.split, self.names = store.dataset_name, store.split, store.names
        self.depth_range, self.eval_crop = store.depth_range, store.eval_crop

    def training(self, epoch: int, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """See `Source`. The views of epoch e are draw e modulo their number, and what is mirrored depends on seed and epoch only."""
        view = epoch % self.store.views.count
        generator = torch.Generator().manual_seed(2 * self.seed + 1 + epoch)
        flips = (torch.rand(len(self.names), generator=generator) < 0.5).tolist() if self.flip else [False] * len(self.names)
        for start in range(0, len(order), batch_size):
            # Plain views first: the order within a batch does not matter, and each kind is read at once.
            chosen = sorted(order[start : start + batch_size], key=lambda index: flips[index])
            plain, mirrored = [i for i in chosen if not flips[i]], [i for i in chosen if flips[i]]
            patches = [self.store.read(part, self.mode, view, m) for part, m in ((plain, False), (mirrored, True)) if part]
            truth = self.store.views.shown(self.store.truth(chosen, view))
            if mirrored:
                truth[len(plain) :] = truth[len(plain) :].flip(-1)
            joined = patches[0] if len(patches) == 1 else torch.cat([p.permute(0, 2, 3, 1) for p in patches]).permute(0, 3, 1, 2)
            yield Batch(joined.to(self.device), truth.to(self.device))

    def evaluation(self, protocol: protocols.Protocol) -> Iterator[Shown]:
        """See `Source`. Raises DataError where the store does not hold what the protocol shows."""
        self.store.expect(views=Views(1, protocol.flip, protocol.input_crop, self.store.views.normalisation))
        sizes = self.store.image_sizes
        for start in range(0, len(sizes), self.batch_size):
            for group in _runs(list(range(start, min(start + self.batch_size, len(sizes)))), sizes):
                mirrored = self.store.read(group, self.mode, mirrored=True).to(self.device) if protocol.flip else None
                yield Shown(group, self.store.read(group, self.mode).to(self.device), mirrored, self.store.truth(group))


def training_store(experiment: Experiment) -> FeatureStore:
    """The store that an experiment names. Raises UsageError or DataError where it cannot be trained on, or its data has changed."""
    store = FeatureStore(experiment.data.removeprefix("store:"))
    if store.split == "test":
        raise UsageError(f"{store.path} holds a test split: what is trained on it cannot be scored on it")
    if experiment.views not in (0, store.views.count):
        raise UsageError(f"{store.path} holds {store.views.count} views of each image: leave out --views {experiment.views}")
    if experiment.crop is not None:
        raise UsageError(f"{store.path} holds views as they are: leave out --crop, or give it to `depthtokens features`")
    check_sizes(store.image_sizes)
    store.check_data()
    return store


def check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    """Raise UsageError where images [(H, W)] that are to be trained on in batches, as they are, differ in size."""
    if len(some := sorted(set(sizes))) > 1:
        said = ", ".join(f"{h}x{w}" for h, w in some[:3])
        raise UsageError(f"training images differ in size ({said}): give --views K --crop HEIGHT WIDTH")


def _same_size(samples: list[Sample]) -> list[list[Sample]]:
    shapes = [tuple(sample.image.shape[1:]) for sample in samples]
    return [[samples[i] for i in run] for run in _runs(list(range(len(samples))), shapes)]


def _runs(indices: list[int], sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Split into runs of one size."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and sizes[runs[-1][-1]] == sizes[index]:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
