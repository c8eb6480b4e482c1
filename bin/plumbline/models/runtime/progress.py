"""How far a model is, for whoever watches."""

import sys
import time


class Progress:
    """Cells done, cells/s and the time left, on stderr every ``every`` seconds."""

    def __init__(self, total: int, name: str, every: float = 10.0) -> None:
        self.total, self.name, self.every, self.done = total, name, every, 0
        self.start = self.last = time.monotonic()

    def add(self, n: int) -> None:
        """``n`` more cells are done."""
        self.done += n
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            speed = self.done / (now - self.start)
            left = (self.total - self.done) / speed if speed else float("inf")
            text = f"{self.name}: {self.done:,} of {self.total:,} cells, {speed:,.1f} cells/s, {left:,.0f} s left"
            print(text, file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since the first cell: without start-up and the loading of weights."""
        return time.monotonic() - self.start

    def finish(self) -> None:
        """The last line."""
        speed = self.done / max(self.seconds, 1e-9)
        print(f"{self.name}: {self.done:,} cells in {self.seconds:,.1f} s, {speed:,.1f} cells/s", file=sys.stderr, flush=True)
