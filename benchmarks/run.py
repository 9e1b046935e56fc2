"""All benchmarks by one command, each part in a process of its own; what is measured goes into docs/performance.md.

    python benchmarks/run.py [--only text training epochs predict photos store memory] [--quick] [--nyu ROOT]

A part's figures are kept (docs/performance.json) and its tables written as soon as it is done, so a run that was cut off goes on with
--only. --quick runs everything at toy sizes, prints the tables and writes nothing. `epochs` needs --nyu ROOT, the labelled NYUv2 tree,
or two stores of it. With a GPU, the parts that can use it run there too.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from common import Row, machine, table
from depthtokens import DepthTokensError

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT, FIGURES = DOCS / "performance.md", DOCS / "performance.json"
Tables = dict[str, list[Row]]
Results = dict[str, dict[str, dict[str, Any]]]
"""Table -> device ("cpu", "cuda") -> machine, date and rows."""


def text(args: argparse.Namespace) -> Tables:
    import text as part

    toy: dict[str, Any] = {"bins": (7,), "grow": (32,), "repeats": 2} if args.quick else {}
    return {
        "text": part.measure(device=args.device, **toy),
        "vocabulary": part.measure_vocabulary(256 if args.quick else None, args.device),
    }


def training(args: argparse.Namespace) -> Tables:
    import training as part

    toy: dict[str, Any] = {"bins": (7,), "size": (96, 128), "images": 16, "repeats": 2} if args.quick else {}
    return part.measure(device=args.device, **toy)


def epochs(args: argparse.Namespace) -> Tables:
    import training as part

    return {"epochs": part.measure_epochs(args.nyu, (args.train_store, args.test_store), 1 if args.quick else 25, args.device)}


def predict(args: argparse.Namespace) -> Tables:
    import predict as part

    toy: dict[str, Any] = {"size": (96, 128), "bins": 7, "repeats": 2} if args.quick else {}
    rows = [
        {"engine": row.name, "ms": row.ms, "of its bare trunk's time": row.of_trunk, "times faster than eager NCHW": 1 / row.of_eager}
        for row in part.measure(**toy)
    ]
    return {"predict": rows}


def photos(args: argparse.Namespace) -> Tables:
    import photos as part

    return {"photos": part.measure(20) if args.quick else part.measure()}


def store(args: argparse.Namespace) -> Tables:
    import store as part

    return {"store": part.measure([20], (64, 64)) if args.quick else part.measure([100, 1000, 10000])}


def memory(args: argparse.Namespace) -> Tables:
    import memory as part

    toy: dict[str, Any] = {"bins": 7, "batch": 2, "images": 4} if args.quick else {}
    return {"memory": part.measure(device=args.device, **toy)}


PARTS: dict[str, Callable[[argparse.Namespace], Tables]] = {
    "text": text, "training": training, "epochs": epochs, "predict": predict, "photos": photos, "store": store,
    "memory": memory,
}  # fmt: skip
CPU_ONLY = {"predict", "photos", "store"}


def run_part(name: str, device: str, passed: list[str]) -> dict[str, Any]:
    """A part's machine and tables, from a process of its own. Raises CalledProcessError where it fails, having said why."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "figures.json"
        subprocess.run([sys.executable, __file__, *passed, "--part", name, "--device", device, "--to", str(to)], check=True)
        return json.loads(to.read_text(encoding="utf-8"))


def rendered(document: str, results: Results) -> str:
    """The document with the tables that there are figures for written anew, between `<!-- table: NAME -->` and `<!-- end -->`."""

    def filled(match: re.Match[str]) -> str:
        by_device = results.get(match[2])
        if by_device is None:
            return match[0]
        parts = [f"{found['machine']}; {found['date']}\n\n{table(found['rows'])}" for _, found in sorted(by_device.items())]
        return "\n\n".join([match[1], *parts, match[3]])

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?(<!-- end -->)", filled, document, flags=re.DOTALL)


def keep(figures: dict[str, Any], device: str) -> None:
    """Put a part's figures in place of the ones before, and write the document's tables."""
    results: Results = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    for name, rows in figures["tables"].items():
        results.setdefault(name, {})[device] = {"machine": figures["machine"], "date": date.today().isoformat(), "rows": rows}
    FIGURES.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8"), results), encoding="utf-8")


def main() -> None:
    """Run the parts one after the other; exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="toy sizes; writes nothing")
    parser.add_argument("--nyu", type=Path, metavar="ROOT", help="the labelled NYUv2 tree, for `epochs`")
    parser.add_argument("--train-store", type=Path, metavar="DIR", help="with --test-store: stores of that set, so that none is made")
    parser.add_argument("--test-store", type=Path, metavar="DIR")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="this one alone")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # how this script calls itself
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        try:
            found = {"tables": PARTS[args.part](args), "machine": machine(args.device)}
        except (DepthTokensError, ModuleNotFoundError) as error:  # a package that is not there, say
            sys.exit(str(error))
        args.to.write_text(json.dumps(found), encoding="utf-8")
        return
    parts = list(args.only)
    if "epochs" in parts and not args.nyu and not (args.train_store and args.test_store):
        print("epochs: left out, needs --nyu ROOT (or --train-store and --test-store)", flush=True)
        parts.remove("epochs")
    devices = [args.device] if args.device else ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    failed = []
    for name, device in ((name, device) for name in parts for device in devices if device == "cpu" or name not in CPU_ONLY):
        print(f"\n{name} on {device} ...", flush=True)
        start = time.perf_counter()
        try:
            figures = run_part(name, device, sys.argv[1:])
        except subprocess.CalledProcessError as error:
            print(f"{name} on {device} failed (exit code {error.returncode})", flush=True)
            failed.append(name)
            continue
        print("\n" + "\n\n".join(table(rows) for rows in figures["tables"].values()))
        print(f"\n{name} on {device}: {time.perf_counter() - start:.0f} s; {figures['machine']}", flush=True)
        if not args.quick:
            keep(figures, device)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
