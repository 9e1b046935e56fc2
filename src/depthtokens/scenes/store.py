"""Rendered scenes on disk: written by all cores, moved into place whole, checked when opened."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DepthTokensError
from ..files import atomic_folder, check_room, file_sha256, sealed, unsealed, write_text
from ..progress import Progress, silent
from .content import DEPTH_RANGE, DEPTH_SCALE, RENDERER_VERSION, Content, scene_seed
from .renderer import render
from .solids import Array

RGB, DEPTH, CONTENT, MANIFEST = "rgb.npy", "depth.npy", "content.jsonl", "manifest.json"


@dataclass(frozen=True)
class Job:
    """Which scenes; the same job is the same pixels.

    Attributes:
        domain: "indoor" or "road".
        split: "train" or "test".
        count: how many scenes.
        size: (height, width) in pixels.
        seed: 0 or more.
        version: of the renderer.
    """

    domain: str
    split: str
    count: int
    size: tuple[int, int]
    seed: int
    version: int = RENDERER_VERSION

    @property
    def name(self) -> str:
        """A folder name of its own."""
        height, width = self.size
        return f"scenes-{self.domain}-{self.split}-{self.count}-{height}x{width}-seed{self.seed}-v{self.version}"

    @property
    def bytes(self) -> int:
        """Size of the arrays: three bytes of colour and two of depth for each pixel."""
        return 5 * self.count * math.prod(self.size)


def steps(depth: Array, domain: str) -> NDArray[np.uint16]:
    """Depth in metres [H, W] -> 16-bit steps of 1/`DEPTH_SCALE` m; 0 outside the domain's range."""
    low, high = DEPTH_RANGE[domain]
    inside = (depth >= low) & (depth <= high)
    return np.where(inside, np.rint(depth * np.float32(DEPTH_SCALE[domain])), 0).astype(np.uint16)


def metres(stored: NDArray[np.uint16], domain: str) -> Array:
    """The inverse of `steps`, float32."""
    return stored.astype(np.float32) / np.float32(DEPTH_SCALE[domain])


def scene(job: Job, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16], Content]:
    """Scene `index` of a job, rendered now: RGB uint8 [H, W, 3], depth in steps [H, W], and content."""
    shot = render(scene_seed(job.seed, job.split, index), job.domain, job.size)
    return shot.rgb, steps(shot.depth, job.domain), shot.content


class Store:
    """The scenes of a job in a folder; rendered first where they are absent, half-written or altered.

    Args:
        folder: they lie in the folder of the job's name in it.
        job: which scenes.
        workers: rendering processes, None = one per core.
        progress: called after each scene that is rendered.

    Attributes:
        rgb: uint8 [N, H, W, 3], memory-mapped.
        depth: uint16 [N, H, W] in steps, memory-mapped.
        contents: [N].

    Raises:
        DataError: where they cannot be written.
    """

    def __init__(self, folder: str | Path, job: Job, workers: int | None = None, progress: Progress = silent) -> None:
        self.job, self.path = job, Path(folder).expanduser() / job.name
        if not self._opened():
            try:
                with atomic_folder(self.path, wait=True) as new:
                    if not self._opened():  # else another process has made them meanwhile
                        check_room(job.bytes, self.path)
                        self._build(new, workers or cores(), progress)
            except DepthTokensError as error:
                raise DataError(f"{error}: name another cache folder") from error
            self._open()

    def _opened(self) -> bool:
        """Map the files into memory, if they are the job's scenes, all of them and unaltered."""
        try:
            manifest = unsealed((self.path / MANIFEST).read_bytes())
            if manifest["job"] != json.loads(json.dumps(asdict(self.job))):
                return False
            if any(file_sha256(self.path / name) != manifest["files"][name] for name in (RGB, DEPTH, CONTENT)):
                return False
            self._open()
        except (DataError, OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
        shape = (self.job.count, *self.job.size)
        arrays = [(array.shape, str(array.dtype)) for array in (self.rgb, self.depth)]
        return arrays == [((*shape, 3), "uint8"), (shape, "uint16")] and len(self.contents) == self.job.count

    def _open(self) -> None:
        """Map the files into memory."""
        self.rgb: NDArray[np.uint8] = np.load(self.path / RGB, mmap_mode="r")
        self.depth: NDArray[np.uint16] = np.load(self.path / DEPTH, mmap_mode="r")
        lines = (self.path / CONTENT).read_text(encoding="utf-8").splitlines()
        self.contents = [Content.from_json(json.loads(line)) for line in lines]

    def __getstate__(self) -> dict[str, object]:
        """Without the pictures: a pickled memory map would carry them all."""
        return {"job": self.job, "path": self.path}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def _build(self, new: Path, workers: int, progress: Progress) -> None:
        """Render into a new folder; what is damaged makes way for it."""
        produce(new, self.job, workers, progress)
        sums = {name: file_sha256(new / name) for name in (RGB, DEPTH, CONTENT)}
        write_text(new / MANIFEST, json.dumps(sealed({"job": asdict(self.job), "files": sums}), indent=1))
        shutil.rmtree(self.path, ignore_errors=True)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def produce(folder: Path, job: Job, workers: int, progress: Progress = silent) -> None:
    """Render all scenes of a job into a folder; whatever worker processes leave undone is rendered here.

    Args:
        folder: an empty one.
        job: which scenes.
        workers: rendering processes.
        progress: called after each scene.
    """
    shape = (job.count, *job.size)
    _reserve(folder / RGB, np.uint8, (*shape, 3))
    _reserve(folder / DEPTH, np.uint16, shape)
    workers = min(workers, job.count // 8)  # a process starts slower than it renders a handful
    if workers > 1:
        _fan_out(folder, job, workers, progress)
    parts = max(1, workers)
    for part in range(parts):
        if not (folder / f"content-{part}").is_file():
            share(folder, job, part, parts, progress)
    lines: list[str] = [""] * job.count
    for part in range(parts):
        path = folder / f"content-{part}"
        lines[part::parts] = path.read_text(encoding="utf-8").splitlines()
        path.unlink()
    write_text(folder / CONTENT, "\n".join(lines))


def _reserve(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> None:
    """Write an array of zeros, with room on the disk for all of it where the system can promise that."""
    np.lib.format.open_memmap(path, "w+", kind, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a disk that makes no such promise
                    raise


def _fan_out(folder: Path, job: Job, workers: int, progress: Progress) -> None:
    """One fresh interpreter per share: nothing of this process is forked or imported again, so scripts need no main guard."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    reading, writing = os.pipe()
    crew: list[subprocess.Popen] = []
    try:
        for part in range(workers):
            order = json.dumps({"folder": str(folder), "job": asdict(job), "part": part, "parts": workers})
            command = [sys.executable, "-m", "depthtokens.scenes.worker", order]
            # Standard input says nothing: it ends with this process, however that ends, and the worker with it.
            crew.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.DEVNULL, env=environment))
        os.close(writing)
        writing = -1
        with os.fdopen(reading, "rb") as ticks:  # one byte per scene; ends when the last worker does
            for done, _ in enumerate(iter(lambda: ticks.read(1), b""), 1):
                progress(_label(job), done, job.count)
        for worker in crew:
            worker.wait()
    except OSError:
        return  # no processes to be had: the caller renders by itself
    finally:
        if writing >= 0:
            os.close(writing)
        for worker in crew:
            if worker.poll() is None:
                worker.terminate()
                worker.wait()
            assert worker.stdin
            worker.stdin.close()


def share(folder: Path, job: Job, part: int, parts: int, progress: Progress = silent) -> None:
    """Render scenes part, part + parts, ... of a job; their contents are written last, as the sign that the share is complete.

    Args:
        folder: where the arrays of all scenes are.
        job: which scenes.
        part: which share, counted from 0.
        parts: how many shares there are.
        progress: called after each scene.
    """
    starts = {name: np.load(folder / name, mmap_mode="r").offset for name in (RGB, DEPTH)}
    lines = []
    # Written, not mapped into memory: there a full disk is the end of the process.
    with (folder / RGB).open("r+b") as rgb, (folder / DEPTH).open("r+b") as depth:
        for index in range(part, job.count, parts):
            image, distance, content = scene(job, index)
            for file, array, name in ((rgb, image, RGB), (depth, distance, DEPTH)):
                file.seek(starts[name] + index * array.nbytes)
                file.write(array.tobytes())
            lines.append(json.dumps(content.to_json()))
            progress(_label(job), len(lines), job.count)
    write_text(folder / f"content-{part}", "\n".join(lines))


def _label(job: Job) -> str:
    """What `progress` says is being done."""
    return f"rendering {job.split} scenes"
