"""Ctrl-C as a request: a run ends after the step that it is at."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupt:
    """A context in which the first Ctrl-C only asks to stop after this step (`asked`); the second acts as usual."""

    asked = False

    def __enter__(self) -> Interrupt:
        self.before: Any = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def _ask(self, _signal: int, _frame: object) -> None:
        """What Ctrl-C calls."""
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
