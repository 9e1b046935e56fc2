"""Making a store, shard by shard, so that a run that was killed can go on where it was.

A store is a folder. plan.json is written first and says what the store is to hold; then come the shards, each under a name with its
number and the beginning of its checksum; meta.json, which lists them, is written last and makes the store a finished one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..clip.device import autocast, find_device, sent
from ..clip.fold import quick
from ..clip.image import ImageTower
from ..clip.load import load_clip
from ..data.dataset import DepthDataset, Sample
from ..data.loader import batches
from ..errors import DataError, DepthTokensError, UsageError
from ..files import LOCK, atomic, check_room, file_sha256, locked, reason, sealed, unsealed, user_path
from ..partial import clear_partials, is_partial
from ..progress import Progress, silent
from ..spread import Cluster, check_same, on_cluster
from .meta import read_meta
from .plan import Plan
from .shard import Builder, StoredView, read_tensors, rows_of
from .store import FeatureStore, wrong_size
from .views import DTYPES, FORMAT, META, PLAN, Views

TRUNK = "quick"
"""How shards are computed, by `clip.fold.quick`; a store that another version began is not mixed with it."""


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


@dataclass(frozen=True)
class Making:
    """How shards are made.

    Attributes:
        out: the store's folder.
        per_shard: images in a shard.
        batch_size: images that go through the trunk together.
        workers: processes that read images.
        device: where the CLIP runs, by name; "auto" picks one on the machine that makes them.
    """

    out: Path
    per_shard: int
    batch_size: int
    workers: int
    device: str


def write(
    plan: Plan,
    out: str | Path,
    *,
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
    wait: bool = False,
    cluster: Cluster | None = None,
    progress: Progress = silent,
) -> FeatureStore:
    """Make a store, or what is missing of it: whole shards of the same plan are kept.

    Args:
        plan: what it will hold, from `plan.plan`.
        out: the store's folder.
        batch_size: images that go through the trunk together.
        workers: processes that read images.
        device: where the CLIP runs; its image tower is moved there. On a cluster a name, "auto" for what each node has.
        wait: whether to wait for another process that is writing the same folder, instead of failing.
        cluster: whose nodes make the shards, which are the same byte for byte on machines that compute alike; None for this process.
        progress: called after every image, on a cluster after every shard.

    Raises:
        UsageError: where `out` holds something else.
        DataError: where another process is writing it, data cannot be read, or the CLIP's features are no finite numbers.
        DepthTokensError: where there is no room or no right to write; finished shards stay.
    """
    out = open_folder(out)
    with locked(out, wait):
        meta = begin(plan, out)
        shards = -(-plan.images // meta["images_per_shard"])
        listed = listed_shards(out)
        done = whole_shards(out, listed)
        if not listed or set(done.values()) != set(listed.values()):
            making = Making(out, meta["images_per_shard"], batch_size, workers, str(device))
            make_shards(plan, making, range(shards), done, cluster, progress)
            write_meta(out, meta, done)
        return FeatureStore(out)


def open_folder(out: str | Path) -> Path:
    """A store's folder, made where it is not there yet. Raises UsageError where it holds something else, before anything is written."""
    out = user_path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthTokensError(f"cannot make the folder {out}: {reason(error)}") from error
    there = {path.name for path in out.iterdir() if not is_partial(path)} - {LOCK}
    if there and not there & {META, PLAN}:
        raise UsageError(f"{out} holds other things: name a new folder")
    return out


def finished(plan: Plan, out: str | Path) -> bool:
    """Whether `out` holds the planned store already, with all shards there and of the right size."""
    try:
        return FeatureStore(out).meta["key"] == plan.key
    except DataError:
        return False


def begin(plan: Plan, out: Path) -> dict[str, Any]:
    """The planned entries of meta.json, with shards as large as those of an unfinished run. Raises UsageError for another store's."""
    begun = None
    if (out / META).is_file():
        begun = read_meta(out)
    elif (out / PLAN).is_file():
        begun = _read_plan(out)
    if begun is None:
        begun = {"format": FORMAT, "key": plan.key, "images_per_shard": plan.meta["images_per_shard"], "trunk": TRUNK}
        _write_json(out / PLAN, sealed(begun))
        return plan.meta
    if begun["key"] != plan.key:
        other = "another store" if (out / META).is_file() else "another store's unfinished work"
        raise UsageError(f"{out} holds {other} (of other data, CLIP, views or modes): name another folder, or delete it")
    if not (out / META).is_file() and begun.get("trunk") != TRUNK:
        raise UsageError(f"{out} holds unfinished work of an earlier version, which rounds otherwise: name another folder, or delete it")
    clear_partials(out)
    return {**plan.meta, "images_per_shard": begun["images_per_shard"]}


def _read_plan(out: Path) -> dict[str, Any]:
    """Content of plan.json. Raises DataError where it is damaged."""
    try:
        return unsealed((out / PLAN).read_bytes())  # a wrong number of images per shard would mix up which images a shard holds
    except (OSError, ValueError) as error:
        raise DataError(f"{out / PLAN} is damaged: delete the folder and begin anew") from error


def listed_shards(out: Path) -> dict[str, Written]:
    """The shards that meta.json lists, by file name; none where there is no meta.json yet."""
    shards = read_meta(out)["shards"] if (out / META).is_file() else []
    return {shard["file"]: Written(shard["file"], shard["bytes"], shard["sha256"]) for shard in shards}


def whole_shards(out: Path, listed: dict[str, Written], numbers: Container[int] | None = None) -> dict[int, Written]:
    """The whole shards in `out`, or those of them that `numbers` holds, by number; damaged ones are deleted, to be made again.

    Of a shard that meta.json lists only the size is looked at; any other is read, and its checksum compared with its name.
    """
    done: dict[int, Written] = {}
    for path in sorted(out.glob("[0-9]*-*.safetensors"), key=lambda path: (path.name in listed, path.name)):
        number, _, short = path.stem.partition("-")
        if numbers is not None and int(number) not in numbers:
            continue
        written = listed.get(path.name)
        if written is None:
            written = Written(path.name, path.stat().st_size, file_sha256(path))
        if wrong_size(path, written.bytes) or not written.sha256.startswith(short):
            path.unlink()
        else:
            done[int(number)] = written
    return done


def make_shards(
    plan: Plan,
    making: Making,
    numbers: Sequence[int],
    done: dict[int, Written],
    cluster: Cluster | None = None,
    progress: Progress = silent,
) -> None:
    """Make shards, here or on a cluster.

    Args:
        plan: of the store.
        making: how.
        numbers: of the shards that there should be in the end.
        done: those that there are; each new one is added as soon as it is.
        cluster: as for `write`.
        progress: called with the number of images that are done.

    Raises:
        DepthTokensError: as `write`.
    """
    total = sum(len(_images(plan, making, number)) for number in numbers)
    ready = sum(len(_images(plan, making, number)) for number in numbers if number in done)
    missing = [number for number in numbers if number not in done]
    label = f"reading {plan.dataset.split} images"
    if not missing:
        return
    check_room(plan.bytes * len(missing) // -(-plan.images // making.per_shard), making.out)
    try:
        if cluster is None:
            computed = _extract(plan, _tower(plan, making), making, missing, lambda image: progress(label, ready + image, total))
            for number, written in computed:
                done[number] = written
            return
        with on_cluster(cluster, _Maker.of(plan, making), making.out) as run:
            for number, written in run(missing):
                done[number] = written
                ready += len(_images(plan, making, number))
                progress(label, ready, total)
    except _Unwritten as error:
        raise DepthTokensError(f"{error}; {len(done)} finished shards are kept: make room and run the same command again") from error


def _images(plan: Plan, making: Making, number: int) -> range:
    """The images of a shard."""
    return range(number * making.per_shard, min((number + 1) * making.per_shard, plan.images))


@dataclass(frozen=True)
class _Maker:
    """The recipe of a cluster's worker that makes shards: a plan without its CLIP, which every worker loads by its name.

    Attributes:
        clip: name and weights, as `load_clip` takes them.
        seen: the CLIP and the data, as the process that has the plan sees them.
        dataset: as the plan's.
        views: as the plan's.
        meta: as the plan's.
        bytes: as the plan's.
        making: how the shards are made.
    """

    clip: tuple[str, str | None]
    seen: dict[str, str]
    dataset: DepthDataset
    views: Views
    meta: dict[str, Any]
    bytes: int
    making: Making

    @staticmethod
    def of(plan: Plan, making: Making) -> _Maker:
        """The recipe for the shards of a plan."""
        seen = {"CLIP": plan.clip.fingerprint, "data": plan.meta["data"]["fingerprint"]}
        named = plan.clip.name, plan.clip.weights
        making = replace(making, out=making.out.absolute())
        return _Maker(named, seen, plan.dataset, plan.views, plan.meta, plan.bytes, making)

    def __call__(self) -> Callable[[int], Written]:
        clip = load_clip(*self.clip)
        check_same(self.seen, {"CLIP": clip.fingerprint, "data": self.dataset.fingerprint()})
        plan = Plan(clip, self.dataset, self.views, self.meta, self.bytes)
        tower = _tower(plan, self.making)
        return lambda number: dict(_extract(plan, tower, self.making, [number]))[number]


def _tower(plan: Plan, making: Making) -> ImageTower:
    """What computes the features, once for all shards that a process makes."""
    plan.clip.visual.to(find_device(making.device))
    return quick(plan.clip.image)


def _extract(
    plan: Plan, tower: ImageTower, making: Making, numbers: Sequence[int], progress: Callable[[int], None] = silent
) -> Iterator[tuple[int, Written]]:
    """Write the shards with these numbers, and give each once it is there; `progress` is told how many images are done.

    Views of all images are numbered through: view k of image i, of `count` views each, has the number i * count + k.
    """
    count, ready = plan.views.count, 0
    order = [image * count + view for number in numbers for image in _images(plan, making, number) for view in range(count)]
    with closing(_computed(plan, tower, order, making)) as computed:
        for number in numbers:
            builder = Builder(plan.meta["modes"], plan.dataset.depth_scale)
            for _ in _images(plan, making, number):
                for view in range(count):
                    sample, features = next(computed)
                    builder.view(view, features, sample.depth[0].numpy())
                ready += 1
                progress(ready)
            yield number, _write_shard(making.out, number, builder.content())


def _write_shard(out: Path, number: int, content: bytes) -> Written:
    """Write one shard. Raises _Unwritten where that is not possible."""
    sha256 = hashlib.sha256(content).hexdigest()
    written = Written(f"{number:05d}-{sha256[:16]}.safetensors", len(content), sha256)
    try:
        with atomic(out / written.file) as file:
            file.write(content)
    except DepthTokensError as error:
        raise _Unwritten(str(error)) from error
    return written


class _Unwritten(DepthTokensError):
    """There is no room or no right to write a shard."""


class _Draws:
    """A data set's views, numbered through as in `_extract`: view k of an image is what the data set shows of it in epoch k."""

    def __init__(self, dataset: DepthDataset, count: int) -> None:
        self.dataset, self.count = dataset, count

    def __getitem__(self, place: int, /) -> Sample:
        return self.dataset.view(*divmod(place, self.count))


def _computed(plan: Plan, tower: ImageTower, order: Sequence[int], making: Making) -> Generator[tuple[Sample, StoredView], None, None]:
    """The views with these numbers, each with its features, in the given order.

    A batch begins with every shard: what comes beside an image in it, and so its rounding, does not depend on which shards were there.
    """
    device = find_device(making.device)
    count = plan.views.count
    draws = _Draws(plan.dataset, count)
    for samples in batches(draws, order, making.batch_size, making.workers, block=making.per_shard * count):
        yield from zip(samples, _features(plan, tower, samples, device), strict=True)


@torch.inference_mode()
def _features(plan: Plan, tower: ImageTower, samples: Sequence[Sample], device: torch.device) -> list[StoredView]:
    """The features of each sample; images of one size go through the trunk together."""
    views, dtype = plan.views, DTYPES[plan.meta["dtype"]]
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


def write_meta(out: Path, meta: dict[str, Any], done: dict[int, Written]) -> None:
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
