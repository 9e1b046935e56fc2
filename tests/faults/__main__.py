"""`make faults`: everything, with large counts. A run that was stopped goes on: what is in the log is not tried again."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

from faults.plan import FEW, MANY, Faults, read_log, table


def main() -> None:
    """Parse, try, print."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"), help="what was tried, one line for each trial")
    parser.add_argument("--only", default="", help="kinds of faults, or what they befall, that contain this")
    parser.add_argument("--part", choices=("commands", "files"), help="one of the two halves")
    parser.add_argument("--few", action="store_true", help="only a few of each")
    args = parser.parse_args()
    counts = FEW if args.few else MANY
    done = read_log(args.log)
    keys = [(line["kind"], line["what"]) for line in done]
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder, args.log.open("a", encoding="utf-8") as log:
        faults = Faults(Path(folder))
        parts = {"commands": faults.commands, "files": faults.files}
        for kind, what, trial in chain.from_iterable(trials(counts) for part, trials in parts.items() if args.part in (None, part)):
            if (kind, what) in keys:
                keys.remove((kind, what))
                continue
            if args.only not in f"{kind}: {what}":
                continue
            began = time.monotonic()
            tries, found = trial()
            line = {"kind": kind, "what": what, "tries": tries, "faults": found}
            log.write(json.dumps(line) + "\n")
            log.flush()
            done.append(line)
            print(f"{kind}: {what}: {tries} tries, {len(found)} not allowed, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            for text in found[:5]:
                print(f"    {text}", file=sys.stderr, flush=True)
    print(table(done))
    sys.exit(any(line["faults"] for line in done))


if __name__ == "__main__":
    main()
