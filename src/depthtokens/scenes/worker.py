"""A rendering process: `python -m depthtokens.scenes.worker ORDER`, with one byte on standard output for each finished scene.

It ends when its standard input does, which is when the process that started it ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from .store import Job, share


def main(order: str) -> None:
    """Render one share of a job; order: JSON with folder, job, part and parts."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    what = json.loads(order)
    job = Job(**{**what["job"], "size": tuple(what["job"]["size"])})
    share(Path(what["folder"]), job, what["part"], what["parts"], _tick)


def _end_with_parent() -> None:
    """Wait for the end of standard input, then end this process at once."""
    while os.read(0, 1):
        pass
    os._exit(1)


def _tick(label: str, done: int, total: int, note: str = "") -> None:
    """One byte for the process that counts."""
    os.write(1, b".")


if __name__ == "__main__":
    main(sys.argv[1])
