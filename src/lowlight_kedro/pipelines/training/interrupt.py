"""Ctrl-C and SIGTERM as a question, so that a run ends with a snapshot."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequests:
    """Which signal asked to stop, if any."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Whether a signal came."""
        return bool(self.number)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as shells count: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number

    def ask(self, number: int, frame: Any) -> None:
        """The handler: the first signal is noted, a second one ends the run at once."""
        if self.number:
            signal.default_int_handler(number, frame)
        self.number = number


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Within the block, the first SIGINT or SIGTERM only turns the yielded question to True; a second one kills.

    Outside the main thread Python cannot catch signals, and the answer stays False.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.signal(number, requests.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
