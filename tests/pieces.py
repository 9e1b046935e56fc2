"""Recipes of workers for tests of spread.py: a cluster's nodes import them from here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depthtokens.data.images import read_photo
from depthtokens.depth.depthmap import DepthMap
from depthtokens.errors import DataError
from depthtokens.spread import check_same
from helpers import one_by_one


def square():
    return lambda number: number * number


def faulty():
    def work(number):
        raise DataError(f"piece {number} cannot be read")

    return work


def fatal():
    return lambda number: os._exit(1)


@dataclass
class Endless:
    """Never done; its worker leaves a file with the number of its process in a folder."""

    folder: str

    def __call__(self):
        return self.work

    def work(self, number):
        Path(self.folder, f"at-work-{os.getpid()}").write_text("")
        time.sleep(1000)


def elsewhere():
    check_same({"CLIP": "a", "data": "b", "modes": "c"}, {"CLIP": "A", "data": "B", "modes": "c"})


def mean():
    """As `predictor` of the verb predict, without torch: depth is the mean of the photo."""

    def predict(photo):
        rgb = read_photo(photo)
        metres = np.full(rgb.shape[:2], rgb.mean() / 50, np.float32)
        return DepthMap(metres, metres, np.ones((1, 1, 1), np.float32), (0.1, 10.0), rgb)

    return one_by_one(predict), {"side": 3}
