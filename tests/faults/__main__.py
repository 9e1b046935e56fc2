"""`make faults`: everything, with large counts. A run that was stopped goes on: what is in the log is not tried again."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from faults.plan import Counts, Faults, read_log, table


def main() -> None:
    """Parse, try, print."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"), help="what was tried, one line for each trial")
    parser.add_argument("--only", default="", help="kinds of faults, or what they befall, that contain this")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts")
    args = parser.parse_args()
    full = Counts()
    small = {name: max(1, int(getattr(full, name) * args.share)) for name in ("kills", "flips", "mutated", "generated")}
    done = read_log(args.log)
    keys = [(line["kind"], line["what"]) for line in done]
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder, args.log.open("a", encoding="utf-8") as log:
        faults = Faults(Path(folder))
        for kind, what, trial in faults.trials(replace(full, **small)):
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
