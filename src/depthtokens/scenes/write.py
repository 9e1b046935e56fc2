"""Scenes as files, in the layout that `Folder` reads."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UsageError
from ..files import atomic_folder, check_room, user_path, write_text
from ..progress import Progress, silent
from .captions import caption
from .content import DEPTH_RANGE, DEPTH_SCALE, SPLIT_CODES, Content
from .dataset import check_job
from .store import CONTENT, DEPTH, RGB, Job, cores, produce


def write_folder(
    out: str | Path,
    domain: str = "indoor",
    count: int = 1000,
    *,
    test: int | None = None,
    size: tuple[int, int] = (208, 272),
    seed: int = 0,
    captions: int = 1,
    workers: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write training and test scenes with their captions into a folder that `Folder` reads.

    It gets OUT/train/images/000000.png, OUT/train/depth/000000.png (16 bit, 1000 steps per metre indoors, 256 on roads), the same under
    OUT/test, OUT/captions.csv (image,caption) and OUT/depthtokens.json (scale and range). OUT appears when all of it is there; a run that
    was killed is simply started again.

    Args:
        out: the folder, which must not be there or be empty.
        domain: "indoor" or "road".
        count: how many training scenes.
        test: how many test scenes, None = a fifth as many.
        size: (height, width) in pixels.
        seed: of the scenes and captions.
        captions: how many of each image.
        workers: rendering processes, None = one per core.
        progress: called after each scene.

    Returns:
        The folder.

    Raises:
        UsageError: where the folder cannot become the scenes' (it is not empty, say), or another argument makes no sense.
        DataError: where another process is writing it.
        DepthTokensError: where it cannot be written, for want of room or rights.
    """
    out = user_path(out)
    target = Path(os.path.realpath(out))
    jobs = [
        check_job(domain, split, n, size, seed) for split, n in (("train", count), ("test", max(1, count // 5) if test is None else test))
    ]
    _check_free(target, out)
    check_room(max(job.bytes for job in jobs), target)
    with atomic_folder(target) as new:
        _check_free(target, out)  # another run may have written it meanwhile
        rows: list[tuple[str, str]] = []
        for job in jobs:
            rows += _write_split(new, job, captions, workers or cores(), progress)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image", "caption"), *rows])
        write_text(new / "captions.csv", text.getvalue())
        settings = {"depth_scale": DEPTH_SCALE[domain], "depth_range": list(DEPTH_RANGE[domain])}
        write_text(new / "depthtokens.json", json.dumps(settings))
    return out


def _check_free(target: Path, out: Path) -> None:
    """Raise UsageError unless a new folder can take the place of `target`, which the user calls `out`."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{out} is not an empty folder: name a new one")
    if target.exists() and (target.is_mount() or target == Path.cwd()):
        raise UsageError(f"{out} is a folder that must stay (a disk's own, or the one you are in): name a new one in it")


def _write_split(folder: Path, job: Job, captions: int, workers: int, progress: Progress) -> list[tuple[str, str]]:
    """Render the scenes of a job as PNGs; returns (image, caption) for each of their captions."""
    raw = folder / "raw"
    raw.mkdir()
    produce(raw, job, workers, progress)
    for kind in ("images", "depth"):
        (folder / job.split / kind).mkdir(parents=True)
    rgb, depth = np.load(raw / RGB, mmap_mode="r"), np.load(raw / DEPTH, mmap_mode="r")
    rows = []
    for index, line in enumerate((raw / CONTENT).read_text(encoding="utf-8").splitlines()):
        name = f"{index:06d}.png"
        Image.fromarray(rgb[index]).save(folder / job.split / "images" / name, compress_level=1)
        Image.fromarray(depth[index]).save(folder / job.split / "depth" / name)
        draws = (np.random.default_rng([job.seed, SPLIT_CODES[job.split], index, draw]) for draw in range(captions))
        content = Content.from_json(json.loads(line))
        rows += [(f"{job.split}/images/{name}", caption(content, draw)) for draw in draws]
    del rgb, depth  # Windows deletes no file that is mapped
    shutil.rmtree(raw)
    return rows
