"""Pictures of tables show what they are given."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from depthtokens.experiment.config import CONSTANT
from depthtokens.experiment.statistics import Interval
from depthtokens.reproduce.plots import COLOURS, CONTROL, LEARNED, PLAIN, RANDOM, WORDS, Mark, group_of, numbers_plot, row_plot, unbeaten
from depthtokens.reproduce.rows import control_row, ridge_rows
from depthtokens.reproduce.settings import rows_for


def mark(label, group, numbers, mean, published=None):
    return Mark(label, group, numbers, Interval(mean, 0.9 * mean, 1.1 * mean, 0.95, 9, 2), [0.95 * mean, 1.05 * mean], published)


MARKS = [
    mark("map", CONTROL, 500, 0.45), mark("near $x_", WORDS, 0, 0.5), mark("far", WORDS, 0, 2.0, 1.0), mark("seven", LEARNED, 7, 0.3),
    mark("worse", LEARNED, 70, 0.31), mark("head", PLAIN, 700, 0.25),
]  # fmt: skip


def places(png, group):
    """(y, x) of the pixels of a group's colour in a picture, from the left upper corner."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    colour = [int(COLOURS[group][i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere(np.abs(picture - np.array(colour)).max(axis=2) <= 3)


def test_rows_stand_from_the_best_down():
    png = row_plot(MARKS, "AbsRel")
    height = Image.open(io.BytesIO(png)).height
    legend = 0.25 * height  # whose dots have the colours too
    tops = {group: min(y for y, _ in places(png, group) if y > legend) for group in (PLAIN, LEARNED, WORDS)}
    rights = {group: max(x for y, x in places(png, group) if y > legend) for group in (PLAIN, LEARNED, WORDS)}
    assert tops[PLAIN] < tops[LEARNED] < tops[WORDS] and rights[PLAIN] < rights[LEARNED] < rights[WORDS]
    fewer = row_plot(MARKS[:4], "AbsRel")
    assert Image.open(io.BytesIO(fewer)).height < height and not len(places(fewer, PLAIN))


def test_what_a_number_buys():
    assert [mark.label for mark in unbeaten(MARKS)] == ["near $x_", "seven", "head"]
    png = numbers_plot(MARKS, "AbsRel")
    height = Image.open(io.BytesIO(png)).height
    middle = {group: np.median([x for y, x in places(png, group) if y > 0.2 * height]) for group in (PLAIN, LEARNED, WORDS)}
    assert middle[WORDS] < middle[LEARNED] < middle[PLAIN]


def test_every_kind_of_row_has_a_group():
    groups = {row.label: group_of(row) for row in rows_for("all", ["nyu", "kitti"])}
    assert groups["t3/learned-7"] == groups["t4/4o4d-depth-7"] == groups["effects/from kitti, metres"] == LEARNED
    assert groups["t3/random-7"] == RANDOM and groups["t3/depth-7"] == groups["effects/depth-7 adapted"] == WORDS
    assert (
        groups["effects/linear head"] == group_of(ridge_rows(rows_for("3", ["nyu"]))[0]) == PLAIN
        and group_of(control_row("nyu", CONSTANT, "auty2023")) == CONTROL
    )
