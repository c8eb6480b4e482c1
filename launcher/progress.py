"""Where a run is, in plain words: stages, tasks done of all, time left. Instead of a line, or a redrawn table, per task."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from launcher.home import say
from launcher.remaining import STEP_OF, Prices, Remaining, process_of

# what a step of the estimate is called
STAGES = {"PREPARE": "data", "EMBED": "embedding", "EVALUATE": "scoring", "EXPERIMENT": "experiments", "REPORT": "report"}
TASK_LINE = re.compile(r"^\[[0-9a-f]{2}/[0-9a-f]{6}\] (Submitted|Re-submitted|Cached) process > (.*)")
SUBMITTED = re.compile(r"\[[0-9a-f]{2}/[0-9a-f]{6}\] (?:Re-s|S)ubmitted process > (.*)")
ENDED = re.compile(r" Task completed > TaskHandler\[.*?\bname: ([^;]+); status: COMPLETED")
HEAD_LINE = re.compile(r"^Estimate: .* on (\d+) processors")
ESTIMATE_LINE = re.compile(r"^\s+(\d+) x (\w+)\s+([\d.]+) (s|min|h) of processor time")
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
EVERY = 20.0  # seconds between lines where each line stays; on a terminal the line is written over every two seconds


class Progress:
    """Reads the lines that Nextflow prints and the log that it writes; says now and then where the run is.

    log: Nextflow's. (The demo has no trace: conf/demo.config.) table: estimate.tsv of the run, as soon as there is one.
    """

    def __init__(
        self,
        log: Path,
        table: Path | None = None,
        clock: Callable[[], float] = time.time,
        terminal: bool | None = None,
    ) -> None:
        self.table, self.clock, self.start = table, clock, clock()
        self.log = Log(log, self.start)
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.planned: dict[str, tuple[int, float]] = {}  # step -> tasks and their processor time in all
        self.cpus = 1
        self.tasks = Remaining()
        self.last, self.told = self.start, ""

    def line(self, text: str) -> None:
        """A line of Nextflow: those on single tasks are left out, all others printed as they are."""
        if found := HEAD_LINE.match(text):
            self.cpus = int(found[1])
        if found := ESTIMATE_LINE.match(text):
            self.planned[found[2]] = (int(found[1]), float(found[3]) * SECONDS[found[4]])
        if not (found := TASK_LINE.match(text)):
            self._clear()
            print(text, flush=True)
        elif found[1] == "Cached":
            self.tasks.cached.add(found[2])

    def tick(self) -> None:
        """Say where the run is, if it is time to and something has changed."""
        now = self.clock()
        self._read(now)
        if not self.planned or now - self.last < (2.0 if self.terminal else EVERY):
            return
        text = self.text(now)
        if text != self.told:
            self._clear()
            say(text, end="" if self.terminal else "\n")
            self.last, self.told = now, text

    def close(self) -> None:
        """The run has ended: its own words come last."""
        self._clear()

    def text(self, now: float) -> str:
        """'data 3/3, embedding 20/24, scoring 12/99; about 2 min left'."""
        ended = Counter(STEP_OF.get(process_of(name)) for name in {*self.tasks.took, *self.tasks.cached})
        parts = []
        for step, stage in STAGES.items():
            done, total = ended[step], self.planned.get(step, (0, 0.0))[0]
            if total:
                parts.append(f"{stage} {min(done, total)}/{total}")
            elif done:
                parts.append(f"{stage} {done} done")
        left = self.tasks.seconds(self.prices(), self.cpus, now)
        return ", ".join(parts) + (f"; about {_words(left)} left" if left else "")

    def prices(self) -> Prices:
        """What the tasks of the plan cost, as far as it is known now."""
        return Prices(self.planned, self.table)

    def _read(self, now: float) -> None:
        for line in self.log.lines():
            if found := SUBMITTED.search(line):
                self.tasks.submit(found[1], now)
            elif found := ENDED.search(line):
                self.tasks.end(found[1], now)

    def _clear(self) -> None:
        if self.terminal and self.told:
            say("\r\033[K", end="")
            self.told = ""


class Log:
    """A log that another program writes. Each look reads on from where the last one ended, or from the start of a new file."""

    def __init__(self, path: Path, since: float) -> None:
        self.path, self.since = path, since  # what was last written before ``since`` is the log of an earlier run
        self.file, self.offset = 0, 0

    def lines(self) -> list[str]:
        """The whole lines that were written since the last look."""
        if not self.path.is_file() or (found := self.path.stat()).st_mtime < self.since:
            return []
        if found.st_ino != self.file or found.st_size < self.offset:  # Nextflow renames an earlier run's log when it starts
            self.file, self.offset = found.st_ino, 0
        with open(self.path, "rb") as stream:
            stream.seek(self.offset)
            whole = stream.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self.offset += len(whole) + 1
        return whole.decode(errors="replace").split("\n")


def _words(seconds: float) -> str:
    return f"{max(10, round(seconds, -1)):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
