"""depthtokens demo"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .console import Reporter, parse, print_json, print_table


@dataclass
class DemoArguments:
    """The whole method on rendered scenes with the CLIP that comes with the package: no download, about a minute on two cores."""

    domain: Literal["indoor", "road"] = "indoor"
    seed: int = 0
    """Of scenes, vectors and training order."""
    out: Path = Path("depthtokens-demo")
    """Folder for report.html and the learned tokens."""
    json: bool = False


def main(arguments: Sequence[str]) -> None:
    """Parse, run, print."""
    args = parse(DemoArguments, "demo", arguments)

    from ..demo.page import write_report
    from ..demo.run import DemoSettings, run_demo
    from ..depth.metrics import METRICS
    from ..depth.protocol import find_protocol

    with Reporter("demo") as reporter:
        demo = run_demo(DemoSettings(domain=args.domain, seed=args.seed), args.out, reporter.named)
    report = args.out / "report.html"
    write_report(demo, report)
    if args.json:
        print_json({
            "rows": [{"name": r.name, "trained_parameters": r.trained_parameters, "scores": r.scores.quoted} for r in demo.results]
        })  # fmt: skip
        return
    protocol = find_protocol(demo.settings.protocol)
    print(protocol.describe(demo.test.depth_range, None))
    rows = [[r.name, r.trained_parameters, *r.scores.quoted.values()] for r in demo.results]
    print_table(f"{demo.settings.test} unseen {args.domain} scenes, {demo.seconds:.0f} s", ["", "trained", *METRICS], rows)
    print(f"\nreport: {report}\ntokens: {demo.tokens}\n\ntry next:")
    print(f"  depthtokens predict {demo.tokens} PHOTO.jpg                # depth of a picture (this CLIP knows rendered scenes only)")
    print(f"  depthtokens data scenes my-scenes --domain {args.domain} --count 500   # scenes as files: train --data folder:my-scenes")
    print("  depthtokens train --clip RN50 --weights openai --data nyu:ROOT   # the real thing")
