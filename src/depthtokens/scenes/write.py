"""Scenes as files, in the layout that `Folder` reads."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError, UsageError
from .captions import caption
from .content import DEPTH_RANGE, DEPTH_SCALE, SPLIT_CODES, Content
from .dataset import check_job
from .store import CONTENT, DEPTH, RGB, Progress, cores, produce


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
    progress: Progress | None = None,
) -> Path:
    """Write `count` training and `test` (None: a fifth as many) test scenes; returns the folder.

    OUT/train/images/000000.png, OUT/train/depth/000000.png (16 bit, 1000 steps per metre indoors, 256 on roads), the same under OUT/test,
    OUT/captions.csv (image,caption; `captions` lines per image) and OUT/depthtokens.json (scale and range). Everything is written to
    OUT.partial, which becomes OUT when it is complete. Raises UsageError if OUT is there and not empty, DataError if it cannot be written.
    """
    out = Path(out).expanduser()
    jobs = [
        check_job(domain, split, n, size, seed) for split, n in (("train", count), ("test", max(1, count // 5) if test is None else test))
    ]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: name a new one")
    partial = out.with_name(out.name + ".partial")
    total, before = sum(job.count for job in jobs), 0
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows: list[tuple[str, str]] = []
        for job in jobs:
            raw = partial / "raw"
            raw.mkdir()
            produce(raw, job, workers or cores(), None if progress is None else _continued(progress, before, total))
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
            before += job.count
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


def _continued(progress: Progress, before: int, total: int) -> Progress:
    """Progress of one of several jobs, of which `before` scenes are done already."""
    return lambda done, _: progress(before + done, total)
