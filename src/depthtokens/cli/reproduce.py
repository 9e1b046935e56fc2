"""The verb `reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import tyro

from ..errors import UsageError
from ..reproduce.settings import Reproduction
from .console import ProgressBar, notify, parse, print_json, print_table
from .flags import JsonFlag, SpreadFlags


@dataclass(frozen=True, kw_only=True)
class Reproduce(JsonFlag, SpreadFlags, Reproduction):
    """Run the paper's tables, and the effects it leaves mixed, beside the published figures and two controls that need no image."""

    as_written: bool = False
    """Keep CLIP frozen, as the paper writes; this is the default, and the opposite of --as-released."""
    plan: bool = False
    """Print the rows and what they cost, run nothing."""


def main(arguments: Sequence[str]) -> None:
    """Parse, plan or run, print."""
    args = parse(Reproduce, "reproduce", arguments, None, tyro.conf.UseAppendAction)
    if args.as_released and args.as_written:
        raise UsageError("--as-released and --as-written are opposites: give one")
    settings = Reproduction(**{field.name: getattr(args, field.name) for field in fields(Reproduction)})
    if args.plan:
        _plan(settings, args.json)
        return

    from ..reproduce.run import reproduce
    from ..reproduce.tables import LEGEND, recipe, save, short_tables, to_json

    if not args.json:
        notify(settings.cost())
    with ProgressBar() as progress:
        done = reproduce(settings, progress, notify, args.cluster)
    paths = save(done)
    if args.json:
        print_json(to_json(done))
        return
    print(f"{recipe(done)}\n{LEGEND}\n")
    for table in short_tables(done).values():
        print_table(table)
        print()
    print("written: " + ", ".join(map(str, paths)))


def _plan(settings: Reproduction, as_json: bool) -> None:
    rows = settings.rows()
    if as_json:
        print_json({"cost": settings.cost(), "rows": [row.to_dict() for row in rows]})
        return
    print(settings.cost())
    for row in rows:
        print(f"  {row.name:<40}  {row.kind}: {', '.join(f'{key} {value}' for key, value in row.settings.items())}; {row.protocol}")
