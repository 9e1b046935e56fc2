"""The verb `pull`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .console import command, parse, print_json
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class Pull(JsonFlag):
    """Fetch a token file from the hub into its cache, or into a file, and check it.

    With HF_HUB_OFFLINE=1 nothing is fetched, and the cache alone is looked at.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The repository; USER/NAME@REVISION for a branch, a tag or a commit."""
    out: Path | None = None
    """The file to write; by default it stays in the hub's cache."""
    overwrite: bool = False
    """Replace the file if it is there."""
    revision: str | None = None
    """The same as behind the @."""


def main(arguments: Sequence[str]) -> None:
    """Parse, pull, print."""
    args = parse(Pull, "pull", arguments)

    from ..clip.hubname import HubName
    from ..deploy.hub import pull

    done = pull(HubName.read(args.name, args.revision), args.out, args.overwrite)
    model, clip = done.header.model, done.header.clip
    if args.json:
        print_json(
            {"file": str(done.file), "name": str(done.name), "depth": model.depth, "clip": clip.name, "fingerprint": clip.fingerprint}
        )
        return
    print(f"{done.file}: {model.depth}, for the CLIP {clip} (pinned: {done.name})")
    print(f"next: {command('predict', done.file, 'PHOTO.jpg')}")
