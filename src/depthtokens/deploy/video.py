"""Films: their frames, upright, and depth of all of them as one film or as files of each. Free of torch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.images import check_pixels, reading
from ..depth.batches import no_error
from ..depth.depthmap import COLOURS, DepthMap
from ..errors import DataError, DepthTokensError
from ..files import atomic
from ..progress import Progress, silent
from .extra import need
from .pipeline import Depths
from .written import Wanted, described

ENDINGS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
_LEAST = 1e-3  # metres, of what a logarithm is taken
_RATES = (0.1, 1000)  # frames per second; others are damage
_GAP = 3600  # seconds that no frame is shown for, in a film that is whole
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class Frame(NamedTuple):
    """One picture of a film.

    Attributes:
        rgb: uint8 [H, W, 3], upright.
        seconds: from the film's start to where it is shown.
    """

    rgb: NDArray[np.uint8]
    seconds: Fraction


class Film:
    """The frames of a film, one after the other; no more than a few are in memory.

    Attributes:
        rate: frames per second.
        count: how many frames the file says it has, 0 where it does not say.
        broken: why it ended before its end, None where it did not.
    """

    def __init__(self, container: Any) -> None:
        self.container, self.stream = container, container.streams.video[0]
        stated = (self.stream.average_rate, self.stream.base_rate)
        self.rate = next((Fraction(rate) for rate in stated if rate and _RATES[0] <= rate <= _RATES[1]), Fraction(25))
        self.count: int = self.stream.frames
        self.broken: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the end, or until they cannot be read any more, which `broken` then says."""
        from av.error import FFmpegError

        shown = start = Fraction(0)
        try:
            for i, frame in enumerate(self.container.decode(self.stream)):
                at = i / self.rate if frame.pts is None else frame.pts * Fraction(frame.time_base)
                start = at if i == 0 else start
                if not 0 <= at - start < shown + _GAP:
                    self.broken = "its times make no sense from there on"
                    return
                shown = at - start
                yield Frame(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))), shown)
        except FFmpegError as error:
            self.broken = error.strerror or str(error)
            return
        if (said := self._seconds()) and shown + 1 / self.rate + 1 < said:
            self.broken = f"it says that it lasts {float(said):.1f} s"

    def _seconds(self) -> Fraction | None:
        """How long the pictures last by what the file says of itself; None where that may be of something else, as sound."""
        if self.stream.duration is not None:
            return self.stream.duration * Fraction(self.stream.time_base)
        only = len(self.container.streams) == 1 and self.container.duration
        return Fraction(self.container.duration, 1_000_000) if only else None


def is_film(path: Path) -> bool:
    """Whether a file is a film, going by its ending."""
    return path.suffix.lower() in ENDINGS


@contextmanager
def opened_film(path: Path) -> Iterator[Film]:
    """A film file, MP4, MOV, MKV, WebM or AVI. It is read as what it begins with: FFmpeg's playlists, which name other files, are not.

    Raises:
        DataError: where it is missing, damaged, or something else.
        UsageError: where PyAV is not installed.
    """
    av = need_av()
    with ExitStack() as stack:
        with reading("film", path):
            file = stack.enter_context(path.open("rb"))
            kind = _format(file.read(12))
            if kind is None:
                raise DataError(f"cannot read film {path}: it is not MP4, MOV, MKV, WebM or AVI")
            file.seek(0)
            try:
                container = stack.enter_context(av.open(file, format=kind, metadata_errors="replace"))
            except av.error.FFmpegError as error:
                raise DataError(f"cannot read film {path}: {error.strerror or error}") from error
            if not container.streams.video:
                raise DataError(f"cannot read film {path}: there are no pictures in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"cannot read film {path}: its pictures are of a kind that PyAV does not decode")
            check_pixels(stream.height, stream.width, f"cannot read film {path}: it")
        yield Film(container)


def write_film(path: Path, depths: Depths, wanted: Wanted, folder: Path, progress: Progress = silent) -> tuple[dict[str, Any], list[Path]]:
    """Depth of a film's frames, as files of each frame, as one film in colour, or both.

    Args:
        path: the film.
        depths: from photos to their maps, as `pipeline.depths`.
        wanted: what is written; its colours have one scale in all frames.
        folder: for the results.
        progress: called after every frame of a film that says how many it has.

    Returns:
        Figures of the film as plain values, and the files.

    Raises:
        DataError: for a film that cannot be read; one that breaks off keeps the results of the frames before.
        DepthTokensError: where a file cannot be written.
    """
    figures: list[dict[str, Any]] = []
    files: list[Path] = []
    smoothed = Smoothed(wanted.smooth or 0)
    times: deque[Fraction] = deque()  # of frames that are read and not written yet

    def pictures(film: Film) -> Iterator[NDArray[np.uint8]]:
        for frame in film:
            times.append(frame.seconds)
            yield frame.rgb

    with opened_film(path) as film, ExitStack() as stack:
        add = None
        for found in stack.enter_context(closing(depths(pictures(film)))):
            depth, seconds = smoothed(no_error(found)), times.popleft()
            if target := wanted.video(path, folder):
                add = add or stack.enter_context(depth_video(target, film.rate))
                add(np.asarray(depth.colour(wanted.colour_range or depth.depth_range, wanted.colour_map or COLOURS)), seconds)
            targets = wanted.frame(path, folder, len(figures))
            wanted.write(depth, path, targets)
            files += targets.values()
            figures.append(described(depth))
            if film.count:
                progress(f"predicting {path.name}", min(len(figures), film.count), film.count)
    if not figures:
        raise DataError(f"cannot read film {path}: {film.broken or 'there are no pictures in it'}")
    if film.broken:
        raise DataError(f"{path} breaks off after {len(figures)} frames ({film.broken}): their results are kept")
    return _together(figures, film.rate), [*files, *([target] if (target := wanted.video(path, folder)) else [])]


class Smoothed:
    """Depth over frames, smoothed exponentially in its logarithm: near and far flicker less in the same proportion. Uncertainty stays.

    Args:
        share: of what was shown before in each frame's log depth, at least 0 (nothing changes) and less than 1.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.last: NDArray[np.float32] | None = None

    def __call__(self, depth: DepthMap) -> DepthMap:
        """The next frame's depth, smoothed."""
        if not self.share:
            return depth
        new = np.log(np.maximum(depth.metres, _LEAST))
        before = new if self.last is None or self.last.shape != new.shape else self.last
        self.last = before + np.float32(1 - self.share) * (new - before)
        return DepthMap(np.exp(self.last), lambda: depth.uncertainty, depth.probs, depth.depth_range, depth.image)


@contextmanager
def depth_video(path: Path, rate: Fraction) -> Iterator[Callable[[NDArray[np.uint8], Fraction], None]]:
    """Write an MP4 (H.264), whole or not at all.

    Args:
        path: the file.
        rate: frames per second.

    Yields:
        What adds a picture, uint8 [H, W, 3], shown so many seconds after the start. Odd sides lose their last row or column.

    Raises:
        DataError: for pictures of several sizes.
        DepthTokensError: where it cannot be written.
    """
    av = need_av()
    tick = 1 / (rate * math.ceil(90_000 / rate))  # all frames of a steady film, and nearly those of another, are whole numbers of it
    with atomic(path) as file:
        try:
            with av.open(file, mode="w", format="mp4") as container:
                stream = container.add_stream("libx264", rate=rate)
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", tick
                size: list[int] = []
                last = -1

                def add(picture: NDArray[np.uint8], seconds: Fraction) -> None:
                    nonlocal last
                    height, width = (side // 2 * 2 for side in picture.shape[:2])
                    if not size:
                        size.extend((height, width))
                        stream.height, stream.width = height, width
                    if size != [height, width]:
                        raise DataError(f"cannot write {path}: its frames are not of one size")
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
                    last = frame.pts = max(round(seconds / tick), last + 1)  # of a damaged film, some may not come in order
                    frame.time_base = tick
                    container.mux(stream.encode(frame))

                yield add
                container.mux(stream.encode())
        except av.error.FFmpegError as error:
            raise DepthTokensError(f"cannot write {path}: {error.strerror or error}") from error


def need_av() -> Any:
    """PyAV. Raises UsageError where it is not installed."""
    return need("av", "video", "a film")


def _format(start: bytes) -> str | None:
    """FFmpeg's name of what a file is that begins so."""
    if start[4:8] in _BOXES:
        return "mov"
    if start.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    return "avi" if start.startswith(b"RIFF") and start[8:12] == b"AVI " else None


def _together(figures: list[dict[str, Any]], rate: Fraction) -> dict[str, Any]:
    """Figures of a film from those of its frames."""
    return {
        **figures[0], "min": min(each["min"] for each in figures), "max": max(each["max"] for each in figures),
        "mean": sum(each["mean"] for each in figures) / len(figures), "frames": len(figures), "rate": float(rate),
        "uncertainty": sum(each["uncertainty"] for each in figures) / len(figures),
    }  # fmt: skip
