"""Making a store, shard by shard, so that a run that was killed can go on where it was.

A store is a folder. plan.json is written first and says what the store is to hold; then come the shards, each under a name with its
number and the beginning of its checksum; meta.json, which lists them, is written last and makes the store a finished one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..clip.device import autocast, sent
from ..data.dataset import DepthDataset, Sample
from ..data.loader import batches
from ..errors import DataError, DepthTokensError, UsageError
from ..files import LOCK, atomic, check_room, file_sha256, locked, reason, sealed, unsealed, user_path
from ..partial import is_partial
from ..progress import Progress, silent
from .meta import read_meta
from .plan import Plan
from .shard import Builder, StoredView, read_tensors, rows_of
from .store import FeatureStore, wrong_size
from .views import DTYPES, FORMAT, META, PLAN


class Written(NamedTuple):
    """A finished shard.

    Attributes:
        file: its name in the store's folder.
        bytes: its size.
        sha256: of its content, 64 hex digits.
    """

    file: str
    bytes: int
    sha256: str


def write(
    plan: Plan,
    out: str | Path,
    *,
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
    wait: bool = False,
    progress: Progress = silent,
) -> FeatureStore:
    """Make a store, or what is missing of it: whole shards of the same plan are kept.

    Args:
        plan: what it will hold, from `plan.plan`.
        out: the store's folder.
        batch_size: images that go through the trunk together.
        workers: processes that read images.
        device: where the CLIP runs; its image tower is moved there.
        wait: whether to wait for another process that is writing the same folder, instead of failing.
        progress: called after every image.

    Raises:
        UsageError: where `out` holds something else.
        DataError: where another process is writing it, data cannot be read, or the CLIP's features are no finite numbers.
        DepthTokensError: where there is no room or no right to write; finished shards stay.
    """
    out = user_path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthTokensError(f"cannot make the folder {out}: {reason(error)}") from error
    there = {path.name for path in out.iterdir() if not is_partial(path)} - {LOCK}
    if there and not there & {META, PLAN}:  # before anything is written
        raise UsageError(f"{out} holds other things: name a new folder")
    with locked(out, wait):
        meta = _begin(plan, out)
        shards = -(-plan.images // meta["images_per_shard"])
        listed = _listed(out)
        done = _finished(out, listed)
        if not listed or set(done.values()) != set(listed.values()):
            check_room(plan.bytes * (shards - len(done)) // shards, out)
            _extract(plan, out, meta["images_per_shard"], done, batch_size, workers, torch.device(device), progress)
            _write_meta(out, meta, done)
        return FeatureStore(out)


def finished(plan: Plan, out: str | Path) -> bool:
    """Whether `out` holds the planned store already, with all shards there and of the right size."""
    try:
        return FeatureStore(out).meta["key"] == plan.key
    except DataError:
        return False


def _begin(plan: Plan, out: Path) -> dict[str, Any]:
    """The planned entries of meta.json, with shards as large as those of an unfinished run. Raises UsageError for another store's."""
    begun = None
    if (out / META).is_file():
        begun = read_meta(out)
    elif (out / PLAN).is_file():
        begun = _read_plan(out)
    if begun is None:
        begun = {"format": FORMAT, "key": plan.key, "images_per_shard": plan.meta["images_per_shard"]}
        _write_json(out / PLAN, sealed(begun))
        return plan.meta
    if begun["key"] != plan.key:
        other = "another store" if (out / META).is_file() else "another store's unfinished work"
        raise UsageError(f"{out} holds {other} (of other data, CLIP, views or modes): name another folder, or delete it")
    for path in filter(is_partial, out.iterdir()):  # left by a run that was killed
        path.unlink()
    return {**plan.meta, "images_per_shard": begun["images_per_shard"]}


def _read_plan(out: Path) -> dict[str, Any]:
    """Content of plan.json. Raises DataError where it is damaged."""
    try:
        return unsealed((out / PLAN).read_bytes())  # a wrong number of images per shard would mix up which images a shard holds
    except (OSError, ValueError) as error:
        raise DataError(f"{out / PLAN} is damaged: delete the folder and begin anew") from error


def _listed(out: Path) -> dict[str, Written]:
    """The shards that meta.json lists, by file name; none where there is no meta.json yet."""
    shards = read_meta(out)["shards"] if (out / META).is_file() else []
    return {shard["file"]: Written(shard["file"], shard["bytes"], shard["sha256"]) for shard in shards}


def _finished(out: Path, listed: dict[str, Written]) -> dict[int, Written]:
    """The whole shards in `out`, by number; damaged ones are deleted, to be made again.

    Of a shard that meta.json lists only the size is looked at; any other is read, and its checksum compared with its name.
    """
    done: dict[int, Written] = {}
    for path in sorted(out.glob("[0-9]*-*.safetensors"), key=lambda path: (path.name in listed, path.name)):
        written = listed.get(path.name)
        if written is None:
            written = Written(path.name, path.stat().st_size, file_sha256(path))
        number, _, short = path.stem.partition("-")
        if wrong_size(path, written.bytes) or not written.sha256.startswith(short):
            path.unlink()
        else:
            done[int(number)] = written
    return done


def _extract(
    plan: Plan,
    out: Path,
    per_shard: int,
    done: dict[int, Written],
    batch_size: int,
    workers: int,
    device: torch.device,
    progress: Progress,
) -> None:
    """Write the shards of `per_shard` images that are not in `done`, and add each to it.

    Views of all images are numbered through: view k of image i, of `count` views each, has the number i * count + k.
    """
    count = plan.views.count
    images = [image for image in range(plan.images) if image // per_shard not in done]
    ready = plan.images - len(images)
    order = [image * count + view for image in images for view in range(count)]
    builder = Builder(plan.meta["modes"], plan.dataset.depth_scale)
    for place, (sample, features) in zip(order, _computed(plan, order, per_shard, batch_size, workers, device), strict=True):
        image, view = divmod(place, count)
        builder.view(view, features, sample.depth[0].numpy())
        if view + 1 < count:
            continue
        ready += 1
        if (image + 1) % per_shard == 0 or image + 1 == plan.images:
            number = image // per_shard
            done[number] = _write_shard(out, number, builder.content(), len(done))
            builder = Builder(plan.meta["modes"], plan.dataset.depth_scale)
        progress(f"reading {plan.dataset.split} images", ready, plan.images)


def _write_shard(out: Path, number: int, content: bytes, kept: int) -> Written:
    """Write one shard; `kept` shards are finished already, which an error says."""
    sha256 = hashlib.sha256(content).hexdigest()
    written = Written(f"{number:05d}-{sha256[:16]}.safetensors", len(content), sha256)
    try:
        with atomic(out / written.file) as file:
            file.write(content)
    except DepthTokensError as error:
        raise DepthTokensError(f"{error}; {kept} finished shards are kept: make room and run the same command again") from error
    return written


class _Draws:
    """A data set's views, numbered through as in `_extract`: view k of an image is what the data set shows of it in epoch k."""

    def __init__(self, dataset: DepthDataset, count: int) -> None:
        self.dataset, self.count = dataset, count

    def __getitem__(self, place: int, /) -> Sample:
        return self.dataset.view(*divmod(place, self.count))


def _computed(
    plan: Plan, order: Sequence[int], per_shard: int, batch_size: int, workers: int, device: torch.device
) -> Iterator[tuple[Sample, StoredView]]:
    """The views with these numbers, each with its features, in the given order.

    A batch begins with every shard: what comes beside an image in it, and so its rounding, does not depend on which shards were there.
    """
    plan.clip.visual.to(device)
    count = plan.views.count
    for samples in batches(_Draws(plan.dataset, count), order, batch_size, workers, block=per_shard * count):
        yield from zip(samples, _features(plan, samples, device), strict=True)


@torch.inference_mode()
def _features(plan: Plan, samples: Sequence[Sample], device: torch.device) -> list[StoredView]:
    """The features of each sample; images of one size go through the trunk together."""
    views, tower, dtype = plan.views, plan.clip.image, DTYPES[plan.meta["dtype"]]
    found: dict[int, StoredView] = {}
    for size in {sample.image.shape for sample in samples}:
        places = [i for i, sample in enumerate(samples) if sample.image.shape == size]
        try:
            images = tower.normalised(views.shown(sent(torch.stack([samples[i].image for i in places]), device)), views.normalisation)
            with autocast(device, plan.meta["precision"]):
                passes = [tower.patches_in(x, plan.meta["modes"]) for x in ((images, images.flip(-1)) if views.mirrored else (images,))]
        except UsageError as error:
            raise DataError(f"{plan.dataset.names[samples[places[0]].index]}: {error}") from error
        grid = passes[0][plan.meta["modes"][0]].shape[-2:]
        rows = {mode: [rows_of(features[mode], dtype) for features in passes] for mode in plan.meta["modes"]}
        for b, i in enumerate(places):
            found[i] = StoredView((grid[0], grid[1]), {m: [(values[b], norm[b]) for values, norm in rows[m]] for m in rows})
            if not all(norm[b].isfinite().all() for passed in rows.values() for _, norm in passed):
                name = plan.dataset.names[samples[i].index]
                raise DataError(f"{name}: the CLIP's features are no finite numbers in {plan.meta['precision']}: use float32")
    return [found[i] for i in range(len(samples))]


def _write_meta(out: Path, meta: dict[str, Any], done: dict[int, Written]) -> None:
    """Write meta.json, once all shards are done. Raises DataError where a shard holds another number of images than planned."""
    images, per_shard = len(meta["names"]), meta["images_per_shard"]
    shards: list[dict[str, Any]] = []
    sizes: list[list[int]] = []
    for number, first in enumerate(range(0, images, per_shard)):
        held = read_tensors(out / done[number].file)["sizes"].tolist()
        if len(held) != min(per_shard, images - first):  # from a store with shards of another size: images would be mixed up
            raise DataError(f"{out / done[number].file} holds {len(held)} images, other than planned: delete the folder and begin anew")
        shards.append({**done[number]._asdict(), "first": first, "images": len(held)})
        sizes += held
    whole = {**meta, "image_sizes": sizes, "shards": shards}
    _write_json(out / META, sealed(whole))


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON with one entry per line, so that people can read it too."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
    with atomic(path) as file:
        file.write(f"{{\n{lines}\n}}\n".encode())
