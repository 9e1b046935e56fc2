"""Depth of photos and films as files in a folder, which says what each was made of: a stopped run goes on there. Free of torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..depth.batches import no_error
from ..depth.depthmap import DepthMap
from ..errors import DataError, DepthTokensError, UsageError
from ..files import digest, make_folder
from ..progress import Progress, silent
from .log import LOG, add_to_log, read_log
from .pipeline import Depths
from .video import is_film, need_av, write_film
from .written import Wanted, described


@dataclass
class Batch:
    """Photos and films whose results go into one folder. Results of photos that failed are missing; all others are whole.

    Attributes:
        photos: the files.
        out: the folder.
        folders: photo -> sub-folder of `out` for its results, of those that have one.
        targets: photo -> format -> file; of a film, the one of its first frame.
        rows: what there is to say of each photo that is done, as plain values.
        failed: one line for each photo that could not be read.
        kept: how many photos were done before.
        shown: how many photos and frames the others are.
        seconds: that the others took.
        records: what would be written to the log, where somebody else writes it; None where the batch does.

    Args:
        photos: as above.
        out: as above.
        wanted: what is written of each photo.
        folders: as above.

    Raises:
        UsageError: for two photos that would share their results, or photos without a focal length where clouds are wanted.
    """

    photos: Sequence[Path]
    out: Path
    wanted: Wanted
    folders: Mapping[Path, Path] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    kept: int = 0
    shown: int = 0
    seconds: float = 0.0
    records: list[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if any(map(is_film, self.photos)):
            need_av()
        if self.wanted.clouds:
            self.wanted.lens.check(self.photos)
        self.targets: dict[Path, dict[str, Path]] = {}
        owners: dict[Path, Path] = {}
        for photo in self.photos:
            self.targets[photo] = self._targets(photo)
            if not self.targets[photo]:
                raise UsageError(f"--formats video is for films, and {photo} is none: give another format beside it")
            for path in self.targets[photo].values():
                if path in owners:
                    raise UsageError(
                        f"{owners[path]} and {photo} have the same name and would share their results: rename one, or predict them into "
                        "separate --out folders"
                    )
                owners[path] = photo

    def refuse_existing(self) -> None:
        """Raise UsageError where results are there already."""
        if existing := [path for path in self._written() if path.exists()]:
            such = f" ({len(existing)} such files)" if len(existing) > 1 else ""
            raise UsageError(f"{existing[0]} exists{such}: go on with --resume, choose another --out, or --overwrite")

    def run(self, depths: Depths, settings: Mapping[str, Any], resume: bool = False, progress: Progress = silent) -> None:
        """Predict and write; photos that cannot be read are noted, and the others go on.

        Args:
            depths: from photos to their maps, as `pipeline.depths`.
            settings: plain values, all that results depend on beside the photo and the colours.
            resume: whether photos stay as they are whose results are there.
            progress: called after every photo.

        Raises:
            UsageError: where `resume` meets results of other settings or other photos.
            DepthTokensError: where a file cannot be written.
        """
        done = self.kept_of(settings) if resume else {}
        settings = self._plain(settings)
        make_folder(self.out)
        start = time.monotonic()
        sources: dict[Path, str | None] = {}
        todo = (photo for photo in self.photos if photo not in done and not is_film(photo))
        with closing(depths(_noting(todo, sources))) as maps:
            for count, photo in enumerate(self.photos, 1):
                try:
                    if photo in done:
                        figures = done[photo]["figures"]
                        self.kept += 1
                    elif is_film(photo):
                        figures = self._film(photo, depths, settings, progress)
                        self.shown += figures["frames"]
                    else:
                        figures = self._photo(photo, next(maps), sources[photo], settings)
                        self.shown += 1
                    self.rows.append({"image": str(photo), **figures, "files": self._files(photo)})
                except DataError as error:
                    self.failed.append(str(error))
                self.seconds = time.monotonic() - start
                progress("predicting", count, len(self.photos))

    def kept_of(self, settings: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
        """What the log says of each photo whose results are there, with these settings. Raises UsageError where they are of others."""
        known, settings = read_log(self.out / LOG), self._plain(settings)
        return {photo: record for photo in self.photos if (record := self._record(photo, known, settings))}

    def _plain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings and what is wanted, as the log has them."""
        return json.loads(json.dumps({**settings, **self.wanted.settings()}))

    def forget(self, photo: Path) -> None:
        """Take note that a photo's results, where there are any, will no longer be what the log said."""
        targets = self.targets[photo].values()
        if any(path.exists() for path in targets):
            self.log({"files": dict.fromkeys(map(self._name, targets))})

    def summary(self) -> dict[str, Any]:
        """What there is to say of all photos together, as plain values: counts, seconds, and the depths (metres) among them."""
        new = len(self.rows) - self.kept
        return {
            "images": len(self.photos), "predicted": new, "kept": self.kept, "failed": len(self.failed), "seconds": self.seconds,
            "shown": self.shown, "images_per_second": self.shown / self.seconds if new else None,
            "min": min((row["min"] for row in self.rows), default=None), "max": max((row["max"] for row in self.rows), default=None),
        }  # fmt: skip

    def _photo(self, photo: Path, found: DepthMap | DepthTokensError, source: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files of one photo; returns its figures."""
        depth = no_error(found)
        self._begin(photo)
        self.wanted.write(depth, photo, self.targets[photo])
        return self._end(photo, described(depth), list(self.targets[photo].values()), source, settings)

    def _film(self, film: Path, depths: Depths, settings: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        """Predict one film and write its files; returns its figures."""
        source = _source(film)
        self._begin(film)
        figures, files = write_film(film, depths, self.wanted, self._folder(film), progress)
        return self._end(film, figures, files, source, settings)

    def _begin(self, photo: Path) -> None:
        """Have folders for results, and no line of the log that speaks for results of before."""
        self.forget(photo)
        for path in self.targets[photo].values():
            make_folder(path.parent)

    def _end(
        self, photo: Path, figures: dict[str, Any], files: Sequence[Path], source: str | None, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Have the log speak for results that are whole; returns their figures."""
        sizes = {self._name(path): path.stat().st_size for path in files}
        self.log({"photo": photo.name, "files": sizes, "source": source, "settings": settings, "figures": figures})
        return figures

    def _record(self, photo: Path, known: Mapping[str, dict[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the log says of a photo whose results are there and whole; None of one that is to be done, or done again."""
        names = [self._name(path) for path in self.targets[photo].values()]
        record = next((known[name] for name in names if name in known and (self.out / name).exists()), None)
        if record is None:
            return None
        other = [name.replace("_", "-") for name in settings if settings[name] != record["settings"].get(name)]
        other += [] if record["source"] == _source(photo) else ["photos, or other versions of them,"]
        if other:
            raise UsageError(f"{self.out} holds results of other {', '.join(other)} than asked for: choose another --out, or --overwrite")
        if is_film(photo):  # and all frames behind the first
            names += record["files"]
        whole = all((path := self.out / name).is_file() and record["files"].get(name) == path.stat().st_size for name in names)
        return record if whole else None

    def _folder(self, photo: Path) -> Path:
        """Where the results of a photo go."""
        return self.out / self.folders.get(photo, "")

    def _targets(self, photo: Path) -> dict[str, Path]:
        """Format -> file of a photo, or of a film and its first frame."""
        if not is_film(photo):
            return self.wanted.targets(photo, self._folder(photo))
        video = self.wanted.video(photo, self._folder(photo))
        return self.wanted.frame(photo, self._folder(photo), 0) | ({"video": video} if video else {})

    def _files(self, photo: Path) -> list[str]:
        """The results of a photo, of a film's frames their folder."""
        paths = self.targets[photo].values()
        return list(map(str, dict.fromkeys(path.parent if is_film(photo) and path.suffix != ".mp4" else path for path in paths)))

    def _name(self, path: Path) -> str:
        """What the log calls a result."""
        return path.relative_to(self.out).as_posix()

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to the log, or to `records`."""
        if self.records is None:
            add_to_log(self.out / LOG, record)
        else:
            self.records.append(record)

    def _written(self) -> list[Path]:
        return [path for paths in self.targets.values() for path in paths.values()]


def _noting(photos: Iterable[Path], sources: dict[Path, str | None]) -> Iterator[Path]:
    """Photos, each after its `_source` was noted: what it is before it is read."""
    for photo in photos:
        sources[photo] = _source(photo)
        yield photo


def _source(photo: Path) -> str | None:
    """What tells a photo from others, and from later versions of itself, without reading it; None where it is not there."""
    try:
        stat = photo.stat()
    except OSError:
        return None
    return digest([str(photo.absolute()), stat.st_size, stat.st_mtime_ns])
