"""Rendered scenes on disk: written by all cores, moved into place whole, checked when opened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
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
        if not intact(self.path, job):
            try:
                self._build(workers or cores(), progress)
            except OSError as error:
                raise DataError(f"cannot write scenes to {self.path}: {error.strerror or error}: name another cache folder") from error
        self._open()

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

    def _build(self, workers: int, progress: Progress) -> None:
        """Render into a folder beside the final one, which takes its place when it is complete."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f"{self.path.name}.partial-*"):
            if time.time() - left.stat().st_mtime > 3600:  # of a run that was killed, not of one beside us
                shutil.rmtree(left, ignore_errors=True)
        partial = self.path.with_name(f"{self.path.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            produce(partial, self.job, workers, progress)
            sums = {name: _sum(partial / name) for name in (RGB, DEPTH, CONTENT)}
            (partial / MANIFEST).write_text(json.dumps({"job": asdict(self.job), "sha256": sums}, indent=1), encoding="utf-8")
            shutil.rmtree(self.path, ignore_errors=True)
            partial.rename(self.path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def intact(path: Path, job: Job) -> bool:
    """Whether the folder holds the job's scenes, all of them and unaltered."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        same = manifest["job"] == json.loads(json.dumps(asdict(job)))
        return same and all(_sum(path / name) == manifest["sha256"][name] for name in (RGB, DEPTH, CONTENT))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def produce(folder: Path, job: Job, workers: int, progress: Progress = silent) -> None:
    """Render all scenes of a job into a folder; whatever worker processes leave undone is rendered here.

    Args:
        folder: an empty one.
        job: which scenes.
        workers: rendering processes.
        progress: called after each scene.
    """
    shape = (job.count, *job.size)
    np.lib.format.open_memmap(folder / RGB, "w+", np.uint8, (*shape, 3)).flush()
    np.lib.format.open_memmap(folder / DEPTH, "w+", np.uint16, shape).flush()
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
    (folder / CONTENT).write_text("\n".join(lines), encoding="utf-8")


def _fan_out(folder: Path, job: Job, workers: int, progress: Progress) -> None:
    """One fresh interpreter per share: nothing of this process is forked or imported again, so scripts need no main guard."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    reading, writing = os.pipe()
    crew: list[subprocess.Popen] = []
    try:
        for part in range(workers):
            order = json.dumps({"folder": str(folder), "job": asdict(job), "part": part, "parts": workers})
            command = [sys.executable, "-m", "depthtokens.scenes.worker", order]
            crew.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.DEVNULL, env=environment))
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


def share(folder: Path, job: Job, part: int, parts: int, progress: Progress = silent) -> None:
    """Render scenes part, part + parts, ... of a job; their contents are written last, as the sign that the share is complete.

    Args:
        folder: where the arrays of all scenes are.
        job: which scenes.
        part: which share, counted from 0.
        parts: how many shares there are.
        progress: called after each scene.
    """
    rgb = np.lib.format.open_memmap(folder / RGB, "r+")
    depth = np.lib.format.open_memmap(folder / DEPTH, "r+")
    lines = []
    for index in range(part, job.count, parts):
        rgb[index], depth[index], content = scene(job, index)
        lines.append(json.dumps(content.to_json()))
        progress(_label(job), len(lines), job.count)
    rgb.flush()
    depth.flush()
    unfinished = folder / f"content-{part}.unfinished"
    unfinished.write_text("\n".join(lines), encoding="utf-8")
    unfinished.rename(folder / f"content-{part}")


def _label(job: Job) -> str:
    """What `progress` says is being done."""
    return f"rendering {job.split} scenes"
