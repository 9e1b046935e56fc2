"""Scenes as files, in the layout that `Folder` reads."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError, UsageError
from ..progress import Progress, silent
from .captions import caption
from .content import DEPTH_RANGE, DEPTH_SCALE, SPLIT_CODES, Content
from .dataset import check_job
from .store import CONTENT, DEPTH, RGB, cores, produce


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
    OUT/test, OUT/captions.csv (image,caption) and OUT/depthtokens.json (scale and range). Everything is written to OUT.partial, which
    becomes OUT when it is complete.

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
        UsageError: where the folder is there and not empty, or another argument makes no sense.
        DataError: where it cannot be written.
    """
    out = Path(out).expanduser()
    jobs = [
        check_job(domain, split, n, size, seed) for split, n in (("train", count), ("test", max(1, count // 5) if test is None else test))
    ]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: name a new one")
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows: list[tuple[str, str]] = []
        for job in jobs:
            raw = partial / "raw"
            raw.mkdir()
            produce(raw, job, workers or cores(), progress)
            for kind in ("images", "depth"):
                (partial / job.split / kind).mkdir(parents=True)
            rgb, depth = np.load(raw / RGB, mmap_mode="r"), np.load(raw / DEPTH, mmap_mode="r")
            contents = [Content.from_json(json.loads(line)) for line in (raw / CONTENT).read_text(encoding="utf-8").splitlines()]
            for index, content in enumerate(contents):
                name = f"{index:06d}.png"
                Image.fromarray(rgb[index]).save(partial / job.split / "images" / name, compress_level=1)
                Image.fromarray(depth[index]).save(partial / job.split / "depth" / name)
                draws = (np.random.default_rng([seed, SPLIT_CODES[job.split], index, draw]) for draw in range(captions))
                rows += [(f"{job.split}/images/{name}", caption(content, draw)) for draw in draws]
            shutil.rmtree(raw)
        with (partial / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("image", "caption"), *rows])
        settings = {"depth_scale": DEPTH_SCALE[domain], "depth_range": list(DEPTH_RANGE[domain])}
        (partial / "depthtokens.json").write_text(json.dumps(settings), encoding="utf-8")
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except OSError as error:
        raise DataError(f"cannot write scenes to {out}: {error.strerror or error}") from error
    return out
