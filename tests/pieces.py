"""Recipes of workers for tests of spread.py: a cluster's nodes import them from here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass
class Doomed:
    """A recipe whose first piece on one node is never done; other nodes do none before that one is at work, which a file says."""

    recipe: Callable[[], Callable[[Any], Any]]
    node: str
    at_work: str

    def __call__(self):
        import ray

        work, here = self.recipe(), ray.get_runtime_context().get_node_id()

        def held(piece):
            if here == self.node:
                Path(self.at_work).write_text("")
                time.sleep(1000)
            deadline = time.monotonic() + 120
            while not Path(self.at_work).exists():
                assert time.monotonic() < deadline, "the node that is to be killed has no work"
                time.sleep(0.02)
            return work(piece)

        return held


def elsewhere():
    check_same({"CLIP": "a", "data": "b", "modes": "c"}, {"CLIP": "A", "data": "B", "modes": "c"})


def mean():
    """As `predictor` of the verb predict, without torch: depth is the mean of the photo."""

    def predict(photo):
        rgb = read_photo(photo)
        metres = np.full(rgb.shape[:2], rgb.mean() / 50, np.float32)
        return DepthMap(metres, metres, np.ones((1, 1, 1), np.float32), (0.1, 10.0), rgb)

    return one_by_one(predict), {"side": 3}
