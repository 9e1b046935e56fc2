"""Every published row as data: its settings, its name and its figures. Loads no torch.

`published.csv` (tables 3-7 of the paper) and `published_depthclip.csv` hold what differs between rows; the rest is one rule per source.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import unknown
from ..prompt.scales import depth_words
from ..prompt.template import parse_template
from ..experiment.config import Experiment

DEPTH_RANGES = {"nyu": (0.001, 10.0), "kitti": (0.001, 80.0)}
"""Metres over which the published rows laid their bins."""
FIGURES = ("abs_rel", "sq_rel", "rmse", "rmsl_paper", "log10", "d1", "d2", "d3")
"""Metrics that at least one published table quotes, by the names of `depth.metrics`."""


@dataclass(frozen=True)
class Preset:
    """One published row: what was run, and what was reported.

    name: "paper/t3/nyu/learned-7", "depthclip/nyu/P1", ... table: "3" to "7", or "depthclip". dataset: "nyu" or "kitti". template,
    depth, bins, dense, scale, protocol: as in `Experiment`. depth_range: metres. published: metric name -> figure, without those
    that the table leaves out.
    """

    name: str
    table: str
    dataset: str
    template: str
    depth: str
    bins: str
    depth_range: tuple[float, float]
    scale: str
    dense: str
    protocol: str
    published: dict[str, float]

    @property
    def learns(self) -> bool:
        """Whether anything in this row is trained: depth tokens, or context tokens around human words."""
        return depth_words(self.depth).kind == "learned" or parse_template(self.template).contexts > 0

    def experiment(self, data: str, *, as_released: bool = False, **overrides: Any) -> Experiment:
        """The experiment behind this row, on `data` ("nyu:ROOT", ...); overrides are further fields of `Experiment`.

        as_released: let BatchNorm adapt during training as the released run did, in rows that train; otherwise CLIP is frozen, as
        the paper writes. Raises UsageError for a field that an experiment does not have.
        """
        known = [field.name for field in fields(Experiment)]
        for field in overrides:
            if field not in known:
                raise unknown("setting", field, known)
        settings: dict[str, Any] = {
            "template": self.template,
            "depth": self.depth,
            "bins": self.bins,
            "depth_range": self.depth_range,
            "dense": self.dense,
            "scale": self.scale,
            "protocol": self.protocol,
            "batchnorm": "adapt" if as_released and self.learns else "frozen",
        }
        return Experiment(data, **(settings | overrides))


def presets(table: str | None = None, dataset: str | None = None) -> list[Preset]:
    """The rows of one table, one data set, or all, in the order of the tables. Raises UsageError for an unknown table or data set."""
    rows = list(_all().values())
    for kind, wanted, known in (("table", table, {row.table for row in rows}), ("data set", dataset, {row.dataset for row in rows})):
        if wanted is not None and wanted not in known:
            raise unknown(f"{kind} of published rows", wanted, known)
    return [row for row in rows if table in (None, row.table) and dataset in (None, row.dataset)]


def find_preset(name: str) -> Preset:
    """A row by its name. Raises UsageError with the nearest name."""
    if name not in _all():
        raise unknown("preset", name, _all())
    return _all()[name]


if TYPE_CHECKING:
    PRESETS: dict[str, Preset]
    """Every published row by name; read from the package's data on first use."""


def __getattr__(name: str) -> Any:
    if name == "PRESETS":
        return _all()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _all() -> dict[str, Preset]:
    rows = [*map(_paper, _read("published.csv")), *map(_depthclip, _read("published_depthclip.csv"))]
    return {row.name: row for row in rows}


def _read(name: str) -> list[dict[str, str]]:
    lines = resources.files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _paper(row: dict[str, str]) -> Preset:
    short = row["depth"].replace(":", "-")
    if row["template"] != "baseline":
        short = f"{row['template']}-{short}"
    if row["bins"] != "linear":
        short = f"{short}-{row['bins']}"
    return Preset(
        name=f"paper/t{row['table']}/{row['dataset']}/{short}",
        table=row["table"],
        dataset=row["dataset"],
        template=row["template"],
        depth=row["depth"],
        bins=row["bins"],
        depth_range=DEPTH_RANGES[row["dataset"]],
        scale="auty2023",
        dense="layer4",
        protocol="auty2023",
        published=_figures(row),
    )


def _depthclip(row: dict[str, str]) -> Preset:
    return Preset(
        name=f"depthclip/nyu/{row['row']}",
        table="depthclip",
        dataset="nyu",
        template="depthclip",
        depth=row["depth"],
        bins=row["bins"],
        depth_range=DEPTH_RANGES["nyu"],
        scale="depthclip",
        dense="layer4",
        protocol="depthclip",
        published=_figures(row),
    )


def _figures(row: dict[str, str]) -> dict[str, float]:
    return {name: float(row[name]) for name in FIGURES if row.get(name)}
