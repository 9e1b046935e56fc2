"""depthtokens reproduce"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import UsageError
from .common import Reporter, note, parse, print_json, print_table

if TYPE_CHECKING:
    from ..experiment.plan import Reproduction


@dataclass
class Reproduce:
    """Run the paper's tables, and the effects it leaves mixed, beside the published figures and two controls that need no image."""

    data: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """nyu:ROOT, kitti:ROOT, scenes or scenes:road; once for each data set."""
    table: str = "all"
    """3, 4, 5, 6, 7, depthclip, effects or all."""
    clip: str = "RN50"
    """An open_clip model name, or a CLIP file or folder, or bundled."""
    weights: str | None = "openai"
    """A weights tag of that model, a file, or random."""
    seeds: str = "0..4"
    """Seeds of rows that draw or learn something: 0..4 (both ends), 0,1,2 or one number."""
    epochs: int = 25
    steps: int | None = None
    """Optimiser steps of each run, instead of epochs."""
    batch_size: int = 16
    lr: float = 3.57e-4
    """Peak learning rate of AdamW under OneCycle."""
    views: int = 1
    """1 = the plain images, half of them mirrored; K = K random views of each, as the released recipe draws them."""
    as_released: bool = False
    """Let BatchNorm adapt in rows that train, as the released run did; slow, since no feature can be kept."""
    as_written: bool = False
    """Keep CLIP frozen, as the paper writes; this is the default, and the opposite of --as-released."""
    stores: Annotated[list[str], tyro.conf.UseAppendAction] = field(default_factory=list)
    """Folders that `features` made, to be used where they fit; others are made in the cache folder."""
    out: str = "reproduction"
    """Folder for tables, tokens and finished rows; the same command goes on where it stopped."""
    workers: int = 2
    device: str = "auto"
    precision: str = "float32"
    plan: bool = False
    """Print the rows and what they cost, run nothing."""
    json: bool = False


def main(arguments: Sequence[str]) -> None:
    """Parse, plan or run, print."""
    args = parse(Reproduce, "reproduce", arguments)
    if args.as_released and args.as_written:
        raise UsageError("--as-released and --as-written are opposites: give one")

    from ..experiment.plan import Reproduction

    values = {field.name: getattr(args, field.name) for field in fields(Reproduction)}
    settings = Reproduction(**{**values, "data": tuple(args.data), "stores": tuple(args.stores)})
    if args.plan:
        _plan(settings, args.json)
        return

    from ..experiment.reproduce import reproduce
    from ..study.tables import HEAD, LEGEND, columns, describe, lines, recipe, save, to_json

    if not args.json:
        note(settings.cost())
    with Reporter("reproducing") as reporter:
        done = reproduce(settings, reporter.named, note)
    paths = save(done)
    if args.json:
        print_json(to_json(done))
        return
    print(f"{recipe(done)}\n{LEGEND}\n")
    shown = [i for i, title in enumerate(HEAD) if title not in ("RMSE", "log10", "AbsRel − learned-7")]
    for role, rows in lines(done).items():
        cells = [[columns(line)[i] for i in shown] for line in rows]
        print_table(describe(done, role), [HEAD[i] for i in shown], cells)
        print()
    print("written: " + ", ".join(map(str, paths)))


def _plan(settings: Reproduction, as_json: bool) -> None:
    rows = settings.rows()
    if as_json:
        print_json({"cost": settings.cost(), "rows": [row.to_dict() for row in rows]})
        return
    print(settings.cost())
    for row in rows:
        print(f"  {row.name:<32}{row.kind}: {', '.join(f'{key} {value}' for key, value in row.settings.items())}; {row.protocol}")
