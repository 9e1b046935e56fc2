"""The page's server. It keeps nothing of what it is given, and reads and fetches nothing else."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ...depth.model import DepthTokens
from ...errors import UsageError
from ...progress import Notify, Progress, silent
from ...report.html import TEMPLATES
from ..extra import need
from .words import Sample

LARGEST = "50mb"
"""The largest file that is taken."""
AGE = 900.0
"""Seconds after which what was uploaded or made is deleted."""

SESSIONS = 32
"""How many pages' last answers gradio keeps, a megabyte each; nothing here needs them."""


def serve(
    model: DepthTokens, host: str, port: int | None, browser: bool, started: Notify, progress: Progress = silent, notify: Notify = silent
) -> None:
    """Run the page until the process is interrupted; then nothing that was uploaded or made is left.

    Args:
        model: whose depth is shown.
        host: address to listen at.
        port: to listen at; None takes 7860, or the next one that is free.
        browser: whether to open the page in a browser.
        started: called with the page's address once it can be opened.
        progress: called as sample scenes are rendered and read.
        notify: called before something is stored in the cache.

    Raises:
        UsageError: for a port that is taken, or where gradio is not installed.
    """
    with kept_nothing() as folder:
        import gradio as gr

        from .page import build

        page = build(model, Sample(model, progress, notify), folder)
        try:
            _, address, _ = page.launch(
                server_name=host, server_port=port, inbrowser=browser, prevent_thread_lock=True, share=False, quiet=True, ssr_mode=False,
                allowed_paths=[str(folder)], max_file_size=LARGEST, enable_monitoring=False, run_history=False, footer_links=[], pwa=False,
                mcp_server=False, state_session_capacity=SESSIONS, app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
                theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]), css_paths=TEMPLATES / "app" / "style.css",
            )  # fmt: skip
        except OSError as error:
            where = "7860 to 7959" if port is None else port
            raise UsageError(f"cannot listen at {host}, port {where}: give another --port") from error
        try:
            started(address)
            while not threading.Event().wait(60):
                sweep(folder, AGE)
        finally:
            page.close(verbose=False)


@contextmanager
def kept_nothing() -> Iterator[Path]:
    """A folder for all that gradio and the page write, which goes in the end; and no address that a client names is fetched.

    Raises:
        UsageError: where gradio is not installed.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="depthtokens-app-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder).resolve())
        processing: Any = need("gradio", "app", "the page").processing_utils  # loads it now, since it notes the folder
        import safehttpx

        # Two doors lead out: that of files that a client names by their address, and that of addresses behind /file=.
        fetch, validate = processing.async_ssrf_protected_get, safehttpx.async_validate_url
        processing.async_ssrf_protected_get = safehttpx.async_validate_url = _refuse
        try:
            yield Path(folder).resolve()
        finally:
            processing.async_ssrf_protected_get, safehttpx.async_validate_url = fetch, validate
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


async def _refuse(address: str) -> NoReturn:
    """What stands in the place of fetching."""
    raise ValueError(f"{address}: nothing is fetched")


def sweep(folder: Path, age: float) -> None:
    """Delete files that nobody has touched for `age` seconds, whoever wrote them (an upload that broke off too), and empty folders."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before it
        with suppress(OSError):  # it is gone already, or not empty
            if time.time() - path.stat().st_mtime > age:
                path.rmdir() if path.is_dir() else path.unlink()
