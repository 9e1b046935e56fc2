"""What a reproduction is asked to do, checked before anything runs. Loads no torch until features are planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, unknown
from ..experiment.config import ClipFlags, RunFlags
from .published import published_rows
from .rows import ADAPTED, CROSS, DEPTH_RANGES, FEW_SHOT, PROMPT, Row, beyond, effects, few_shot, ridge_rows, role_of

if TYPE_CHECKING:
    from ..features.views import Views

DRAWS = 2
"""Which way orders and mirror images are drawn from the seed: counted up with every change, so that no table mixes two of them."""
ALL = ("3", "4", "5", "6", "7", "depthclip", "effects")
"""The tables that `all` runs: what the paper asks."""
TABLES = (*ALL, "beyond", FEW_SHOT)


@dataclass(frozen=True, kw_only=True)
class Reproduction(RunFlags, ClipFlags):
    """What to reproduce, and how; a row's own settings come from the row."""

    data: tuple[str, ...] = ()
    """nyu:ROOT, kitti:ROOT, scenes or scenes:road; once for each data set."""
    list_file: tuple[str, ...] = ()
    """A list file where it is not found under ROOT, as nyu:test=FILE or kitti:train=FILE; once for each list."""
    nyu_depth: str | None = None
    """Ground truth of NYUv2's labelled .mat: raw (the default) or filled."""
    table: str = "all"
    """3, 4, 5, 6, 7, depthclip, effects, all (of these), beyond (other objectives, numbers as words, image-conditioned tokens) or few-shot
    (tokens, heads and the mean map from 1 to 256 training images)."""
    seeds: str = "0..4"
    """Seeds of rows that draw or learn something: 0..4 (both ends), 0,1,2 or one number."""
    epochs: int = 25
    steps: int | None = None
    """Optimiser steps of each run, instead of epochs."""
    batch_size: int = 16
    lr: float = 3.57e-4
    """Peak learning rate of AdamW under OneCycle."""
    views: int = 1
    """1 = the plain images, half of them mirrored; K = K random views of each, as the released recipe draws them; 0 = new random views in
    every epoch, CLIP frozen, as the paper writes: rows then train on the images themselves, since no feature can be kept."""
    as_released: bool = False
    """Let BatchNorm adapt in rows that train, as the released run did: from new random views in every epoch, no feature can be kept."""
    stores: tuple[str, ...] = ()
    """Folders that `features` made, to be used where they fit; others are made in the cache folder."""
    out: str = "reproduction"
    """Folder for tables, tokens and finished rows; the same command goes on where it stopped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", *(["steps"] if self.steps is not None else [])):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.views < 0:
            raise UsageError(f"views must not be negative, and is {self.views}")
        how = "--as-released" if self.as_released else "--views 0" if not self.views else None
        if how and self.steps is not None:
            raise UsageError(f"{how} trains whole epochs, as the released run did: give --epochs, not --steps")
        if how and self.table == FEW_SHOT:
            raise UsageError(f"table few-shot learns from stored features: leave out {how}")
        if not self.lr > 0:
            raise UsageError(f"lr must be positive, not {self.lr}")
        self.rows()
        self.lists()
        self.seed_list()

    def by_role(self) -> dict[str, str]:
        """Whose rows -> the data they run on; empty without data, of which rows can be told, not run.

        Raises:
            UsageError: for data that no row was published on, or twice for the same rows.
        """
        found: dict[str, str] = {}
        for spec in self.data:
            role = role_of(spec)
            if role in found:
                raise UsageError(f"{found[role]} and {spec} both stand for {role}'s rows: reproduce them into separate --out folders")
            found[role] = spec
        return found

    def lists(self) -> dict[tuple[str, str], str]:
        """List files by role and split. Raises UsageError for one that is not written as nyu:test=FILE, or is for data that is not here."""
        found: dict[tuple[str, str], str] = {}
        for text in self.list_file:
            place, equals, file = text.partition("=")
            name, _, split = place.partition(":")
            if not equals or not file or split not in ("train", "test") or name not in self.by_role():
                known = " or ".join(f"{role}:test=FILE" for role in self.by_role() or DEPTH_RANGES)
                raise UsageError(f"list file '{text}': write {known}, with train or test")
            found[name, split] = file
        return found

    def rows(self) -> list[Row]:
        """What will be run, or without data could be; rows that borrow tokens come after those that lend them, and ridges last.

        Raises as `rows_for`.

        Scenes have no 480x640 images to cut DepthCLIP's crop from: on them its rows are scored by the paper's protocol.
        """
        data = self.by_role()
        rendered = [role for role, spec in data.items() if spec.startswith("scenes")]
        rows = rows_for(self.table, list(data or DEPTH_RANGES))
        rows = [replace(row, protocol="auty2023") if row.role in rendered else row for row in rows]
        return [*sorted(rows, key=lambda row: row.kind == CROSS), *ridge_rows(rows)]

    def seed_list(self) -> list[int]:
        """The seeds as numbers. Raises UsageError."""
        return parse_seeds(self.seeds)

    def steps_for(self, images: int) -> int:
        """Optimiser steps of a run over `images` training images."""
        return self.steps or self.epochs * -(-images // self.batch_size)

    def cost(self) -> str:
        """What will be run, in words: how many rows, runs and steps, and which features are read for them."""
        rows, seeds = self.rows(), len(self.seed_list())
        learning = [row for row in rows if row.learns]
        steps = _counted(self.steps, "step") if self.steps else _counted(self.epochs, "epoch")
        runs = _counted(len(learning) * seeds, "run")
        said = f"{_counted(len(rows), 'row')}, {len(learning)} of them trained for {_counted(seeds, 'seed')}: {runs} of {steps}"
        read = []
        for (role, split, views), modes in self.needs(rows).items() if self.data else ():
            of = "plain" if views.count == 1 else f"{views.count} random views"
            of += " and mirrored" if views.mirrored else ""
            of += ", cropped" if views.input_crop else ""
            of += ", CLIP's normalisation" if views.normalisation == "clip" else ""
            read.append(f"{self.by_role()[role]} {split} ({of}; {', '.join(modes)})")
        own, fresh = [row for row in rows if self.adapts(row)], [row for row in rows if self.fresh(row) and not self.adapts(row)]
        if own:
            said += f", {len(own)} of the rows with an image trunk of their own for each seed, run on the images themselves"
        if fresh:
            said += f", {len(fresh)} of the rows trained on the images themselves, new views in every epoch"
        return f"{said}; features read once: {'; '.join(read) or 'none'}" if self.data else said

    def adapts(self, row: Row) -> bool:
        """Whether a row's trunk adapts, so that none of its features can be stored."""
        trains_tokens = (row.learns and row.kind == PROMPT) or row.source is not None
        return row.kind == ADAPTED or (self.as_released and trains_tokens)

    def fresh(self, row: Row) -> bool:
        """Whether a row learns from new views in every epoch, so that the features it learns from cannot be stored."""
        return row.learns and not self.views

    def from_images(self, row: Row) -> bool:
        """Whether a row's runs read images, each its own."""
        return self.adapts(row) or self.fresh(row)

    def recipe(self) -> dict[str, Any]:
        """What a figure depends on, beside its row and its data."""
        where = ("data", "list_file", "nyu_depth", "table", "stores", "out", "workers", "device")
        return {**{key: value for key, value in asdict(self).items() if key not in where}, "draws": DRAWS}

    def need(self, row: Row, split: str) -> tuple[str, str, Views]:
        """(role, split, views) of the stored features that a row learns from ("train") or is scored on ("test")."""
        from ..depth.protocol import find_protocol
        from ..experiment.source import scored_views
        from ..features.views import Views

        normalisation = row.model.normalisation
        if split == "train":
            views = self.views or 1  # a ridge, in closed form, takes the plain images where others see new ones in every epoch
            return row.role, split, Views(views, views == 1, None, normalisation)
        return row.role, split, scored_views(find_protocol(row.protocol), normalisation)

    def needs(self, rows: list[Row]) -> dict[tuple[str, str, Views], list[str]]:
        """Every kind of stored features that some row reads, with the dense modes read of it."""
        found: dict[tuple[str, str, Views], set[str]] = {}
        for row in rows:
            for split in ("train", "test"):
                if not self.adapts(row) and (split == "test" or (row.shown_training and not self.fresh(row))):
                    found.setdefault(self.need(row, split), set()).add(row.model.on(row.depth_range).dense)
        return {need: sorted(modes) for need, modes in found.items()}


def rows_for(table: str, roles: list[str]) -> list[Row]:
    """The rows of a table for the data sets at hand, each row once.

    Args:
        table: one of `TABLES`, or "all".
        roles: whose rows: "nyu", "kitti".

    Raises:
        UsageError: for an unknown table, or one that has no row for this data, saying what can be run.
    """
    if table != "all" and table not in TABLES:
        raise unknown("table", table, [*TABLES, "all"])
    found: dict[str, Row] = {}
    for name in ALL if table == "all" else (table,):
        found |= {row.name: row for role in roles for row in _table_rows(name, role, roles)}
    if not found:
        needed = sorted({row.role for row in published_rows(table)})
        can = [name for name in TABLES if any(_table_rows(name, role, roles) for role in roles)]
        raise UsageError(
            f"table {table} needs --data {' or '.join(f'{n}:ROOT' for n in needed)}; with this data, tables {', '.join(can)} run"
        )
    return list(found.values())


def _table_rows(table: str, role: str, roles: list[str]) -> list[Row]:
    """The rows of one table for one data set of several."""
    if table == "effects":
        return effects(role, roles)
    own = {"beyond": beyond, FEW_SHOT: few_shot}
    return own[table](role) if table in own else published_rows(table, role)


def parse_seeds(text: str) -> list[int]:
    """Seeds from "0..4" (both ends included), "0,1,2" or "42". Raises UsageError for anything else."""
    try:
        first, dots, last = text.partition("..")
        seeds: Sequence[int] = range(int(first), int(last) + 1) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not 1 <= len(seeds) <= 1000 or min(seeds) < 0 or max(seeds) >= 2**32 or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds '{text}': write 0..4 (both ends), 0,1,2 or one number, each once, at most 1000, below 2**32")
    return list(seeds)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
