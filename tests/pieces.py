"""Recipes of workers for tests of spread.py: a cluster's nodes import them from here."""

from __future__ import annotations

import os
import time

from depthtokens.errors import DataError
from depthtokens.spread import check_same


def square():
    return lambda number: number * number


def faulty():
    def work(number):
        raise DataError(f"piece {number} cannot be read")

    return work


def fatal():
    return lambda number: os._exit(1)


def endless():
    return lambda number: time.sleep(1000)


def elsewhere():
    check_same({"CLIP": "a", "data": "b", "modes": "c"}, {"CLIP": "A", "data": "B", "modes": "c"})
