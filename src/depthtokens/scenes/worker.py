"""A rendering process: `python -m depthtokens.scenes.worker ORDER`, with one byte on standard output for each finished scene."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .store import Job, share


def main(order: str) -> None:
    """Render one share of a job; order: JSON with folder, job, part and parts."""
    what = json.loads(order)
    job = Job(**{**what["job"], "size": tuple(what["job"]["size"])})
    share(Path(what["folder"]), job, what["part"], what["parts"], _tick)


def _tick(label: str, done: int, total: int, note: str = "") -> None:
    """One byte for the process that counts."""
    os.write(1, b".")


if __name__ == "__main__":
    main(sys.argv[1])
