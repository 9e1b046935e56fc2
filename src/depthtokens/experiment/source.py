"""The one door to patch features: from images, now; from a store, where they were computed once; or through the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..clip.device import dtype_of
from ..data import open_dataset, states_units
from ..data.dataset import DepthDataset, Sample
from ..data.loader import batches
from ..depth import protocol as protocols
from ..depth.linear import Trainable
from ..errors import DataError, UsageError
from ..features.cache import cached
from ..features.store import FeatureStore
from ..features.views import Views
from ..progress import Notify, Progress, silent

Data = DepthDataset | FeatureStore


class Batch(NamedTuple):
    """Training views: patches [B, C, h, w] float32 and truth [B, 1, H, W] metres, 0 = none."""

    patches: Tensor
    truth: Tensor


class Shown(NamedTuple):
    """Test images of one size.

    Attributes:
        indices: in the data set.
        patches: [B, C, h, w].
        mirrored: of the mirror images, None without flip averaging.
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


@dataclass(frozen=True)
class Reading:
    """How patch features are had.

    Attributes:
        cache: keep them in the cache folder where their views are fixed and the trunk is frozen.
        batch_size: test images that go through the trunk together.
        workers: processes that read images.
        precision: of the image tower.
        list_file: what the data set was opened with; a store that is made notes it.
        folder: a cache folder of one's own.
        hint: what `notify` says behind where features are stored, and how big.
        progress: called as images are read.
        notify: called with a line before anything is stored.
    """

    cache: bool = False
    batch_size: int = 4
    workers: int = 2
    precision: str = "float32"
    list_file: str | None = None
    folder: Path | None = None
    hint: str = "; --no-cache avoids it"
    progress: Progress = silent
    notify: Notify = silent


def open_source(
    model: Trainable | None,
    data: Data,
    views: Views | None = None,
    reading: Reading | None = None,
    *,
    flip_seed: int | None = None,
    together: Sequence[str] = (),
) -> Source:
    """Patch features of data for a model, on the model's device.

    Args:
        model: whose image tower, dense mode and normalisation they are for; None reads no features, only ground truth.
        data: a data set's images, or a store of their features.
        views: the fixed views that are wanted; None means new random views in every epoch of training (or, for a data set without
            augmentation, the plain images).
        reading: how they are had; by default from images, each time.
        flip_seed: show half of the training views of a store mirrored, drawn from this seed.
        together: further dense modes to store in the same pass, where one is needed.

    Raises:
        DataError: for a store of another CLIP, mode, normalisation or views, or whatever keeps images from being read.
        UsageError: for a store where the model's trunk is no longer the CLIP's, or an unknown precision.
    """
    how = reading or Reading()
    if model is None:
        if isinstance(data, FeatureStore):
            raise UsageError("a store is read for a model")
        return Images(data, lambda images: images, batch_size=how.batch_size, workers=how.workers)
    dtype_of(how.precision)  # an unknown one is found before any work
    settings = model.settings
    if not isinstance(data, FeatureStore) and how.cache and views is not None and settings.batchnorm == "frozen":
        data = cached(
            model.clip, data, views, [settings.dense, *together], workers=how.workers, device=model.centres.device,
            precision=how.precision, list_file=how.list_file, folder=how.folder, hint=how.hint, progress=how.progress, notify=how.notify,
        )  # fmt: skip
    if isinstance(data, FeatureStore):
        check_store(model, data)
        return Stored(data, settings.dense, device=model.centres.device, flip_seed=flip_seed, batch_size=how.batch_size)
    device, tower = model.centres.device, model.tower

    def encode(images: Tensor) -> Tensor:
        return tower.encode(images.to(device), settings.dense, settings.normalisation, how.precision)

    return Images(data, encode, views=views.count if views else 0, batch_size=how.batch_size, workers=how.workers)


def test_views(protocol: protocols.Protocol, normalisation: str = "imagenet") -> Views:
    """The views of test images that a protocol shows."""
    return Views(1, protocol.flip, protocol.input_crop, normalisation)


def check_store(model: Trainable, store: FeatureStore) -> None:
    """Raise DataError or UsageError, saying why, where a store's features are not what the model reads."""
    settings = model.settings
    if settings.batchnorm == "adapt":
        raise UsageError('batchnorm "adapt" changes the image trunk: its features cannot be stored, read the images')
    if store.views.normalisation != settings.normalisation:
        raise DataError(f"{store.path} has images normalised for {store.views.normalisation}, not {settings.normalisation}")
    store.expect(clip=model.clip, mode=settings.dense)


def check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    """Raise UsageError where images [(H, W)] that are to be trained on in batches, as they are, differ in size."""
    if len(some := sorted(set(sizes))) > 1:
        said = ", ".join(f"{h}x{w}" for h, w in some[:3])
        raise UsageError(f"training images differ in size ({said}): give --views K --crop HEIGHT WIDTH")


@dataclass(frozen=True)
class NamedData:
    """Data by the name that a person gives it.

    Attributes:
        name: nyu:ROOT, kitti:ROOT, folder:ROOT, scenes, or store:FOLDER, which stands for the data set that it was made from.
        depth_scale: units per metre of a folder's depth files; where None, what the store or training was told about it.
        depth_range: metres, of a folder; likewise.
        trained: settings of the run that tokens come from, if any.
    """

    name: str
    depth_scale: float | None = None
    depth_range: tuple[float, float] | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def store(self) -> FeatureStore | None:
        """The store, where one was named. Raises DataError for one that is none, damaged, or of data that has changed."""
        if not self.name.startswith("store:"):
            return None
        store = FeatureStore(self.name.removeprefix("store:"))
        store.check_data()
        return store

    def split(self, name: str, list_file: str | None = None) -> DepthDataset:
        """A split of the data set, as images. Raises as `open_dataset`."""
        spec = self.store.data if self.store else self.name
        told: dict[str, Any] = {"depth_scale": self.depth_scale, "depth_range": self.depth_range}
        if states_units(spec):
            known = self.store.meta["data"] if self.store else self.trained
            told = {key: value or known.get(key) for key, value in told.items()}
        return open_dataset(spec, name, list_file=list_file, **told)


class Images:
    """Features computed now.

    Args:
        dataset: the images.
        encode: from normalised images [B, 3, H, W] to patch features.
        views: 0 = a new draw in every epoch; K = the same K draws again and again.
        batch_size: test images encoded together.
        workers: processes that read images.
    """

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
    """Features of one dense mode from a store.

    Args:
        store: the store.
        mode: the dense mode.
        device: where features go.
        flip_seed: show half of the training views mirrored, drawn from this seed (the store must hold mirror images); None shows none.
        batch_size: test images read together.

    Raises:
        DataError: for a mode that the store does not hold.
        UsageError: for a batch size below 1, or a store without mirror images where they are wanted.
    """

    def __init__(
        self, store: FeatureStore, mode: str, *, device: torch.device | str = "cpu", flip_seed: int | None = None, batch_size: int = 8
    ) -> None:
        store.expect(mode=mode)
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size}: needs at least 1")
        if flip_seed is not None and not store.views.mirrored:
            raise UsageError(f"{store.path} holds no mirror images to train on")
        self.store, self.mode, self.device, self.flip_seed, self.batch_size = store, mode, torch.device(device), flip_seed, batch_size
        self.name, self.split, self.names = store.dataset_name, store.split, store.names
        self.depth_range, self.eval_crop = store.depth_range, store.eval_crop

    def training(self, epoch: int, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """See `Source`. The views of epoch e are draw e modulo their number, and what is mirrored depends on seed and epoch only."""
        view = epoch % self.store.views.count
        flips = [False] * len(self.names)
        if self.flip_seed is not None:
            generator = torch.Generator().manual_seed(2 * self.flip_seed + 1 + epoch)
            flips = (torch.rand(len(self.names), generator=generator) < 0.5).tolist()
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
        self.store.expect(views=test_views(protocol, self.store.views.normalisation))
        sizes, read = self.store.image_sizes, partial(self.store.read, mode=self.mode)
        for start in range(0, len(sizes), self.batch_size):
            for group in _runs(list(range(start, min(start + self.batch_size, len(sizes)))), sizes):
                mirrored = read(group, mirrored=True).to(self.device) if protocol.flip else None
                yield Shown(group, read(group).to(self.device), mirrored, self.store.truth(group))


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
