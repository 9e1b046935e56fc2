"""The verb `app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from .console import ProgressBar, notify, parse
from .flags import TokenFlags


@dataclass(frozen=True, kw_only=True)
class App(TokenFlags):
    """A page in the browser: depth of photos, words of your own beside learned ones, and what the tokens are like.

    It is for this machine alone unless --host says otherwise. Ctrl-C ends it, and leaves nothing of what was uploaded.
    """

    tokens: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENS")] = None
    """Token file, a run's folder, or hf:USER/NAME; the demonstration's tokens on the CLIP that comes with the package if not given."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for everybody who reaches this machine."""
    port: int | None = None
    """Port to listen at; 7860, or the next one that is free, if not given."""
    open: bool = False
    """Open the page in a browser."""


def main(arguments: Sequence[str]) -> None:
    """Parse, run the page until it is interrupted."""
    args = parse(App, "app", arguments)

    from ..clip.device import find_device
    from ..demo import TOKENS
    from ..deploy.app.serve import serve

    model = args.load(args.tokens or TOKENS).to(find_device(args.device))
    with ProgressBar() as progress:
        serve(model, args.host, args.port, args.open, lambda address: print(f"{address} (Ctrl-C ends it)", flush=True), progress, notify)
