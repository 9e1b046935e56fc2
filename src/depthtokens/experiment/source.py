"""Where patch features come from: computed from images as they are needed, or read from a store, the user's own or one in the cache.

`open_source` decides which; whoever trains or scores calls it and does not need to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..clip.device import dtype_of, sent
from ..clip.fold import quick
from ..data.dataset import DepthDataset, Sample
from ..data.loader import batches
from ..depth import protocol as protocols
from ..depth.linear import Trainable
from ..depth.loss import MIN_TRUTH
from ..errors import DataError, UsageError
from ..features.cache import CannotStore, cached
from ..features.store import FeatureStore
from ..features.views import Views
from ..progress import Notify, Progress, silent

Data = DepthDataset | FeatureStore
"""What can be trained or scored on: images, or a store of their patch features."""


ORDER, FLIPS, HELD_OUT, SUBSET = 0, 1, 2, 3
"""What is drawn: for an epoch the order of images, and which views are mirrored; for a run which images are held out, or trained on."""


class Batch(NamedTuple):
    """Training views.

    Attributes:
        patches: [B, C, h, w] float32, patch features.
        truth: [B, 1, H, W] metres, 0 = none.
        without_truth: how many of the images have no valid truth.
    """

    patches: Tensor
    truth: Tensor
    without_truth: int

    @staticmethod
    def on(device: torch.device, patches: Tensor, truth: Tensor) -> Batch:
        """Views whose truth is counted where it was read, so that no GPU has to be asked, and then brought to a device.

        Args:
            device: where both are wanted.
            patches: [B, C, h, w], on any device.
            truth: [B, 1, H, W] metres, on the CPU.
        """
        without = int((truth.flatten(1).amax(dim=1) <= MIN_TRUTH).sum())
        return Batch(sent(patches, device), sent(truth, device), without)


class Shown(NamedTuple):
    """Test images of one size.

    Attributes:
        indices: of the images in the data set.
        patches: [B, C, h, w], patch features.
        mirrored: [B, C, h, w], patch features of the mirror images; None where there is no flip averaging.
        truth: [B, 1, H, W] metres of the whole images, 0 = none, on the CPU.
    """

    indices: list[int]
    patches: Tensor
    mirrored: Tensor | None
    truth: Tensor


class Scored(Protocol):
    """What heads are scored on: what they read of a data set's images, and ground truth.

    Attributes:
        name: of the data set.
        split: of the data set.
        names: of its images.
        depth_range: (lo, hi) metres, of the data set.
        eval_crop: name of the data set's evaluation crop, None for none.
    """

    name: str
    split: str
    names: list[str]
    depth_range: tuple[float, float]
    eval_crop: str | None

    def evaluation(self, protocol: protocols.Protocol) -> Iterator[Shown]:
        """All images in order, with patch features of what `protocol` shows to CLIP, some of one size at a time."""
        ...


class Source(Scored, Protocol):
    """Patch features and ground truth of a data set, to learn from as well."""

    def training(self, epoch: int, order: Sequence[int], batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """The views of one epoch, batch by batch.

        Args:
            epoch: counted from 0; it decides which views are shown.
            order: indices of the images.
            batch_size: images in a batch; the last may have fewer.
            seed: of whatever is drawn for this epoch and not by the data set.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """How patch features are to be computed, and whether they are kept.

    Attributes:
        cache: whether to keep them in the cache folder, and use what is there, where views are fixed and the trunk is frozen.
        batch_size: test images that go through the trunk, or are read from a store, together.
        workers: processes that read images.
        precision: of the image tower: float32, bfloat16 or float16.
        list_file: the list file that the data set was opened with, if one was named; a store that is made notes it.
        folder: used instead of the cache folder.
        hint: end of the line that `notify` is called with.
        progress: called as images are read for a store.
        notify: called before anything is stored, with one line that says how big it is and where it will lie.
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
    flip: bool = False,
    together: Sequence[str] = (),
) -> Source:
    """Patch features and ground truth of data, for a model and on its device.

    A store is read. Images are encoded as they are needed, unless `views` are fixed, `reading.cache` is on and the model's trunk is
    frozen: then their features are computed once, kept in the cache folder and read from there.

    Args:
        model: that reads the features: its image tower, mode and normalisation decide what they are; None computes no features, for
            heads that need only ground truth, which get the images in their place.
        data: images, or a store of their features.
        views: the views of each image that are wanted, always the same; None means new random views in every epoch of training (or, for
            a data set without augmentation, the plain images).
        reading: how features are computed and kept; None computes them each time, with the defaults of `Reading`.
        flip: where features come from a store, training shows half of the views mirrored.
        together: more modes that a store made now is to hold, since they cost no further pass over the trunk.

    Raises:
        DataError: for a store of another CLIP, mode or normalisation, or images that cannot be read.
        UsageError: for a store without a model or for one whose trunk is no longer the CLIP's, a store without mirror images where they
            are wanted, or an unknown precision.
    """
    how = reading or Reading()
    if model is None:
        if isinstance(data, FeatureStore):
            raise UsageError("a store is read for a model")
        return Images(data, lambda images: images, batch_size=how.batch_size, workers=how.workers)
    dtype_of(how.precision)  # an unknown one is found before any work
    settings = model.settings
    if not isinstance(data, FeatureStore) and how.cache and views is not None and settings.batchnorm == "frozen":
        try:
            data = cached(
                model.clip, data, views, [settings.dense, *together], workers=how.workers, device=model.centres.device,
                precision=how.precision, list_file=how.list_file, folder=how.folder, hint=how.hint, progress=how.progress,
                notify=how.notify,
            )  # fmt: skip
        except CannotStore as error:
            if flip:  # only stored views come mirrored
                raise
            how.notify(f"note: {error}: images are read each time")
    if isinstance(data, FeatureStore):
        check_store(model, data)
        return Stored(data, settings.dense, device=model.centres.device, flip=flip, batch_size=how.batch_size)
    device = model.centres.device
    tower = quick(model.tower) if settings.batchnorm == "frozen" else model.tower

    def encode(images: Tensor) -> Tensor:
        return tower.encode(sent(images, device), settings.dense, settings.normalisation, how.precision)

    return Images(data, encode, views=views.count if views else 0, batch_size=how.batch_size, workers=how.workers)


def drawn(seed: int, epoch: int, what: int) -> np.random.Generator:
    """A generator for one thing that an epoch draws; no two seeds, epochs or things share theirs.

    Args:
        seed: of the run.
        epoch: counted from 0.
        what: `ORDER` or `FLIPS`.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, what)))


def scored_views(protocol: protocols.Protocol, normalisation: str = "imagenet") -> Views:
    """The views of test images that scoring reads.

    Args:
        protocol: decides on the input crop, and on mirror images.
        normalisation: of the model, one of `clip.NORMALISATIONS`.
    """
    return Views(1, protocol.flip, protocol.input_crop, normalisation)


def check_store(model: Trainable, store: FeatureStore) -> None:
    """Check that a store's features are what a model reads.

    Args:
        model: that is to read them.
        store: that holds them.

    Raises:
        DataError: for a store of another CLIP, mode or normalisation.
        UsageError: for a model whose trunk is no longer the CLIP's.
    """
    settings = model.settings
    if settings.batchnorm == "adapt":
        raise UsageError('batchnorm "adapt" changes the image trunk: its features cannot be stored, read the images')
    if store.views.normalisation != settings.normalisation:
        raise DataError(f"{store.path} has images normalised for {store.views.normalisation}, not {settings.normalisation}")
    store.expect(clip=model.clip, mode=settings.dense)


def check_sizes(sizes: Sequence[tuple[int, int]]) -> None:
    """Raise UsageError where training images of these sizes (H, W) differ: uncropped, they do not fit into one batch."""
    if len(some := sorted(set(sizes))) > 1:
        listed = ", ".join(f"{h}x{w}" for h, w in some[:3])
        raise UsageError(f"training images differ in size ({listed}): give --views K --crop HEIGHT WIDTH")


class Images:
    """A source whose patch features are computed from images as they are needed. Its attributes are those of `Source`.

    Args:
        dataset: the images.
        encode: from images [B, 3, H, W], as data sets hand them out, to patch features [B, C, h, w].
        views: 0 for new random views in every epoch; K for the same K views again and again.
        batch_size: test images that are encoded together.
        workers: processes that read images.
    """

    def __init__(
        self, dataset: DepthDataset, encode: Callable[[Tensor], Tensor], *, views: int = 0, batch_size: int = 4, workers: int = 2
    ) -> None:
        self.dataset, self.encode, self.views, self.batch_size, self.workers = dataset, encode, views, batch_size, workers
        self.name, self.split, self.names = dataset.name, dataset.split, dataset.names
        self.depth_range, self.eval_crop = dataset.depth_range, dataset.eval_crop

    def training(self, epoch: int, order: Sequence[int], batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """As `Source.training`, with views that the data set draws. Raises UsageError where the views of a batch differ in size.

        Args:
            epoch: counted from 0; it decides which views are shown.
            order: indices of the images.
            batch_size: images in a batch.
            seed: not used: the data set has its own.
        """
        draw = epoch % self.views if self.views else epoch
        for samples in batches(_Draw(self.dataset, draw), order, batch_size, self.workers):
            shapes = {tuple(sample.image.shape[1:]) for sample in samples}
            if len(shapes) > 1:
                sizes = ", ".join(f"{h}x{w}" for h, w in sorted(shapes)[:3])
                raise UsageError(f"training images differ in size ({sizes}): give --crop HEIGHT WIDTH")
            patches = self.encode(torch.stack([sample.image for sample in samples]))
            yield Batch.on(patches.device, patches, torch.stack([sample.depth for sample in samples]))

    def evaluation(self, protocol: protocols.Protocol) -> Iterator[Shown]:
        """As `Source.evaluation`. An image of another size than the one before it starts a new batch.

        Raises:
            UsageError: for a data set that was opened to draw random views.
        """
        if getattr(self.dataset, "augment", None) is not None:
            raise UsageError(f"{self.name} ({self.split}) was opened with random views: open it without augment to score on it")
        for samples in batches(self.dataset, range(len(self.dataset)), self.batch_size, self.workers):
            for group in _same_size(samples):
                images = protocol.shown(torch.stack([sample.image for sample in group]))
                mirrored = self.encode(images.flip(-1)) if protocol.flip else None
                yield Shown([s.index for s in group], self.encode(images), mirrored, torch.stack([s.depth for s in group]))


class _Draw:
    """One draw of a data set's random views."""

    def __init__(self, dataset: DepthDataset, draw: int) -> None:
        self.dataset, self.draw = dataset, draw

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset.view(index, self.draw)


class Stored:
    """A source whose patch features are read from a store. Its attributes are those of `Source`.

    Args:
        store: that holds them.
        mode: the one that is read.
        device: where features and ground truth of training views go.
        flip: training shows half of the views mirrored (the store must hold mirror images).
        batch_size: test images that are read together.

    Raises:
        DataError: for a mode that the store does not hold.
        UsageError: for a batch size below 1, or a store without mirror images where they are wanted.
    """

    def __init__(
        self, store: FeatureStore, mode: str, *, device: torch.device | str = "cpu", flip: bool = False, batch_size: int = 8
    ) -> None:
        store.expect(mode=mode)
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size}: needs at least 1")
        if flip and not store.views.mirrored:
            raise UsageError(f"{store.path} holds no mirror images to train on")
        self.store, self.mode, self.device, self.flip, self.batch_size = store, mode, torch.device(device), flip, batch_size
        self.name, self.split, self.names = store.dataset_name, store.split, store.names
        self.depth_range, self.eval_crop = store.depth_range, store.eval_crop

    def training(self, epoch: int, order: Sequence[int], batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """As `Source.training`. Of K stored views, epoch e shows view e modulo K; which ones are mirrored depends on seed and epoch only.

        Args:
            epoch: counted from 0.
            order: indices of the images.
            batch_size: images in a batch.
            seed: of what is mirrored.
        """
        view = epoch % self.store.views.count
        flips = [False] * len(self.names)
        if self.flip:
            flips = (drawn(seed, epoch, FLIPS).random(len(self.names)) < 0.5).tolist()
        for start in range(0, len(order), batch_size):
            # Plain views first: the order within a batch does not matter, and so the views of each kind are read in one go.
            chosen = sorted(order[start : start + batch_size], key=lambda index: flips[index])
            plain, mirrored = [i for i in chosen if not flips[i]], [i for i in chosen if flips[i]]
            patches = [self.store.read(part, self.mode, view, m) for part, m in ((plain, False), (mirrored, True)) if part]
            truth = self.store.views.shown(self.store.truth(chosen, view))
            if mirrored:
                truth[len(plain) :] = truth[len(plain) :].flip(-1)
            joined = patches[0] if len(patches) == 1 else torch.cat([p.permute(0, 2, 3, 1) for p in patches]).permute(0, 3, 1, 2)
            yield Batch.on(self.device, joined, truth)

    def evaluation(self, protocol: protocols.Protocol) -> Iterator[Shown]:
        """As `Source.evaluation`. Raises DataError where the store does not hold what the protocol shows."""
        self.store.expect(views=scored_views(protocol, self.store.views.normalisation))
        sizes, read = self.store.image_sizes, partial(self.store.read, mode=self.mode)
        for start in range(0, len(sizes), self.batch_size):
            for group in _runs(list(range(start, min(start + self.batch_size, len(sizes)))), sizes):
                mirrored = sent(read(group, mirrored=True), self.device) if protocol.flip else None
                yield Shown(group, sent(read(group), self.device), mirrored, self.store.truth(group))


def _same_size(samples: list[Sample]) -> list[list[Sample]]:
    """Split samples, in order, wherever the image's size changes."""
    shapes = [tuple(sample.image.shape[1:]) for sample in samples]
    return [[samples[i] for i in run] for run in _runs(list(range(len(samples))), shapes)]


def _runs(indices: list[int], sizes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Split indices, in order, wherever the size that belongs to an index changes."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and sizes[runs[-1][-1]] == sizes[index]:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
