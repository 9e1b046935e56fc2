"""The verb `push`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .console import command, parse, print_json
from .flags import JsonFlag


@dataclass(frozen=True, kw_only=True)
class Push(JsonFlag):
    """Put a token file and its model card into a repository of the hub; no CLIP, and nothing of where things lie on this machine.

    The user is the one who is logged in with `hf auth login`, or whose token is in HF_TOKEN.
    """

    tokens: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")]
    """Token file, as `train` writes it, or the run's folder."""
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The repository, which is made where it is not there."""
    licence: str | None = None
    """Of the tokens, as the hub calls it (mit, cc-by-4.0); without one the card says that none was stated."""
    scores: Path | None = None
    """File of what `evaluate TOKENS --json` printed, for the card."""
    private: bool = False
    """Push only to a repository that nobody else sees."""
    revision: str | None = None
    """Branch to push to, made where it is not there; by default the main one."""
    message: str | None = None
    """What the commit says."""
    dry_run: Path | None = None
    """Write what would be pushed into this new folder instead."""


def main(arguments: Sequence[str]) -> None:
    """Parse, push, print."""
    args = parse(Push, "push", arguments)

    from ..clip.hubname import HubName
    from ..deploy.hub import contents, push, write_contents
    from ..depth.hub import MESSAGE

    name = HubName.read(args.name, args.revision)
    if args.dry_run is not None:
        files = contents(args.tokens, name, args.licence, args.scores)
        write_contents(files, args.dry_run)
        if args.json:
            print_json({"folder": str(args.dry_run), "files": {file: len(content) for file, content in files.items()}})
            return
        print(f"{args.dry_run}: {', '.join(f'{file} ({len(content):,} bytes)' for file, content in files.items())}; nothing was pushed")
        return
    done = push(args.tokens, name, licence=args.licence, scores=args.scores, private=args.private, message=args.message or MESSAGE)
    pinned = HubName(name.repo, done.id)
    if args.json:
        print_json({"name": str(name), "commit": done.id, "url": done.url})
        return
    print(f"{done.url}\nnext: {command('predict', str(pinned), 'PHOTO.jpg')}")
