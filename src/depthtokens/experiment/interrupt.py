"""Ctrl-C and SIGTERM as a request: a run ends after the step that it is at."""

from __future__ import annotations

import signal
import threading
from typing import Any

SIGNALS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""What asks a run to stop, and what the same does when it comes again."""


class Interrupt:
    """A context in which the first Ctrl-C or SIGTERM, as schedulers send it, only asks to stop after this step; the second acts at once.

    Attributes:
        asked: the number of the signal that came, None while none has.
    """

    asked: int | None = None

    def __enter__(self) -> Interrupt:
        self.before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)

    def _ask(self, number: int, _frame: object) -> None:
        """What a signal calls."""
        self.asked = number
        for each, handler in SIGNALS.items():
            signal.signal(each, handler)
