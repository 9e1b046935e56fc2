"""A batch of photos and films over the nodes of a cluster. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import make_folder
from ..progress import Progress, silent
from ..spread import Cluster, check_same, on_cluster
from .photos import Batch
from .pipeline import Depths
from .video import is_film
from .written import Wanted

PHOTOS = 16
"""How many photos are a piece of work; a film is one by itself."""


def run_on(
    cluster: Cluster,
    batch: Batch,
    load: Callable[[], tuple[Depths, dict[str, Any]]],
    resume: bool = False,
    progress: Progress = silent,
) -> None:
    """As `Batch.run`, on a cluster. Nodes write results, this process the log: a photo that is not in it is predicted again.

    Args:
        cluster: whose nodes predict.
        batch: of photos, at paths that all nodes see.
        load: gives what predicts photos and all that their depth depends on; nodes call it too, so it is to be pickled.
        resume: as for `Batch.run`.
        progress: called after every piece.

    Raises:
        UsageError: as `Batch.run`.
        DepthTokensError: where a file cannot be written, or as `spread.on_cluster` says.
    """
    start = time.monotonic()
    depths, settings = load()
    kept = batch.kept_of(settings) if resume else {}
    todo = [photo for photo in batch.photos if photo not in kept]
    make_folder(batch.out)
    for photo in todo:
        batch.forget(photo)
    shown = 0
    if todo:
        with on_cluster(cluster, _Predicting(load, settings, batch.out, batch.wanted), batch.out) as run:
            pieces = [{photo: batch.folders.get(photo, Path()) for photo in photos} for photos in _pieces(todo)]
            for photos, part in run(pieces):
                for record in part.records or ():
                    batch.log(record)
                batch.rows += part.rows
                shown += part.shown
                todo = todo[len(photos) :]
                progress("predicting", len(batch.photos) - len(todo), len(batch.photos))
    batch.rows.clear()
    batch.run(depths, settings, resume=True)  # reads the log, and says of photos that failed why
    batch.kept, batch.shown, batch.seconds = len(kept), batch.shown + shown, time.monotonic() - start


@dataclass(frozen=True)
class _Predicting:
    """The recipe of a worker that predicts photos into the folder of a batch, but leaves its log alone."""

    load: Callable[[], tuple[Depths, dict[str, Any]]]
    settings: Mapping[str, Any]
    out: Path
    wanted: Wanted

    def __call__(self) -> Callable[[Mapping[Path, Path]], Batch]:
        depths, settings = self.load()
        check_same(self.settings, settings)

        def work(photos: Mapping[Path, Path]) -> Batch:
            part = Batch(list(photos), self.out, self.wanted, photos, records=[])
            part.run(depths, settings)
            return part

        return work


def _pieces(photos: Sequence[Path]) -> list[Sequence[Path]]:
    """Films, the largest first, then photos, some together."""
    films = sorted(filter(is_film, photos), key=_size, reverse=True)
    plain = [photo for photo in photos if not is_film(photo)]
    return [*([film] for film in films), *(plain[first : first + PHOTOS] for first in range(0, len(plain), PHOTOS))]


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
