"""The verb `demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .console import ProgressBar, command, parse, print_json, print_table
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class DemoArguments(JsonFlag):
    """The whole method on rendered scenes with the CLIP that comes with the package: no download, about a minute on two cores."""

    domain: Literal["indoor", "road"] = "indoor"
    seed: int = 0
    """Of scenes, vectors and training order."""
    out: Path = Path("depthtokens-demo")
    """Folder for report.html and the learned tokens."""


def main(arguments: Sequence[str]) -> None:
    """Parse, run, print."""
    args = parse(DemoArguments, "demo", arguments)

    from ..demo.page import score_table, write_page
    from ..demo.run import DemoSettings, run_demo
    from ..depth.metrics import METRICS
    from ..depth.protocol import find_protocol

    with ProgressBar() as progress:
        demo = run_demo(DemoSettings(domain=args.domain, seed=args.seed), args.out, progress)
    page = args.out / "report.html"
    write_page(demo, page)
    if args.json:
        print_json(demo.to_dict())
        return
    protocol = find_protocol(demo.settings.protocol)
    print(protocol.describe(demo.test.depth_range, None))
    print_table(score_table(demo, list(METRICS), f"{demo.settings.test} unseen {args.domain} scenes, {demo.seconds:.0f} s"))
    print(f"\npage: {page}\ntokens: {demo.tokens}\n\ntry next:")
    print(f"  {command('predict', demo.tokens, 'PHOTO.jpg')}                # depth of a picture (this CLIP knows rendered scenes only)")
    print(f"  depthtokens data scenes my-scenes --domain {args.domain} --count 500   # scenes as files: train --data folder:my-scenes")
    print("  depthtokens train --clip RN50 --weights openai --data nyu:ROOT   # the real thing")
