"""The verb `reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import tyro

from ..errors import DepthTokensError, UsageError
from ..reproduce.settings import Reproduction
from .console import ProgressBar, notify, parse, print_json, print_table
from .flags import JsonFlag, SpreadFlags


@dataclass(frozen=True, kw_only=True)
class Reproduce(JsonFlag, SpreadFlags, Reproduction):
    """Run the paper's tables, and the effects it leaves mixed, beside the published figures and two controls that need no image."""

    as_written: bool = False
    """Train as the paper writes: CLIP frozen, new random views in every epoch, which is --views 0."""
    plan: bool = False
    """Print the rows and, where data is named, bytes of features and minutes to expect; run nothing."""


def main(arguments: Sequence[str]) -> None:
    """Parse, plan or run, print."""
    args = parse(Reproduce, "reproduce", arguments, None, tyro.conf.UseAppendAction)
    if args.as_released and args.as_written:
        raise UsageError("--as-released and --as-written are opposites: give one")
    if args.as_written and args.views > 1:
        raise UsageError("--as-written is --views 0: leave out one of the two")
    settings = Reproduction(**{field.name: getattr(args, field.name) for field in fields(Reproduction)})
    if args.as_written:
        settings = replace(settings, views=0)
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
    rows, found = settings.rows(), None
    if settings.data:
        from ..reproduce.run import expected

        try:
            with ProgressBar() as progress:
                found = expected(settings, progress, notify)
        except DepthTokensError as error:  # the rows are known without data
            notify(f"no estimate of bytes and minutes: {error}")
    if as_json:
        expects = {"bytes": found and found.bytes, "minutes": found and found.minutes}
        print_json({"cost": settings.cost(), **expects, "rows": [row.to_dict() for row in rows]})
        return
    print(settings.cost())
    if found:
        print(found)
    for row in rows:
        print(f"  {row.name:<40}  {row.kind}: {', '.join(f'{key} {value}' for key, value in row.settings.items())}; {row.protocol}")
