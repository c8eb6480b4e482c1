"""Where a run is, in plain words: stages, tasks done of all, time left. Instead of a line, or a redrawn table, per task."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from launcher.home import say

# what a stage is called, and its processes
STAGES = {
    "data": ("FETCH", "PREPARE", "PREPARE_HELD_OUT"),
    "embedding": ("EMBED_CPU", "EMBED_GPU"),
    "scoring": ("EVALUATE_TOGETHER", "EVALUATE_CPU", "EVALUATE_GPU"),
    "experiments": (
        "ABLATE_INTEGRITY",
        "COMPARE_CONTEXTS",
        "DESCRIBE_COUNTS",
        "HOLD_OUT",
        "RECALL_GENES",
        "SCORE_FEWER_CELLS",
    ),
    "report": ("MAP", "SUMMARISE", "REPORT", "MULTIQC"),
}
# of the estimate
STEPS = {"PREPARE": "data", "EMBED": "embedding", "EVALUATE": "scoring", "EXPERIMENT": "experiments", "REPORT": "report"}
TASK_LINE = re.compile(r"^\[[0-9a-f]{2}/[0-9a-f]{6}\] (Submitted|Re-submitted|Cached) process > (.*)")
TASK_ENDED = re.compile(r" Task completed > TaskHandler\[.*?\bname: ([^;]+); status: COMPLETED")
ESTIMATE_LINE = re.compile(r"^\s+(\d+) x (\w+)\s+([\d.]+) (s|min|h) of processor time")
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
EVERY = 20.0  # seconds between lines where each line stays; on a terminal the line is written over every two seconds


class Progress:
    """Reads the lines that Nextflow prints and the log that it writes; tells now and then where the run is."""

    def __init__(self, log: Path, clock: Callable[[], float] = time.time, terminal: bool | None = None) -> None:
        self.log, self.clock, self.start = log, clock, clock()
        self.cached: set[str] = set()  # names of tasks
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.planned: dict[str, tuple[int, float]] = {}  # stage -> tasks and their processor time in all
        self.last, self.told = self.start, ""

    def line(self, text: str) -> None:
        """A line of Nextflow: those on single tasks are left out, all others printed as they are."""
        if found := ESTIMATE_LINE.match(text):
            stage = STEPS.get(found[2], "")
            self.planned[stage] = (int(found[1]), float(found[3]) * SECONDS[found[4]])
        if not (found := TASK_LINE.match(text)):
            self._clear()
            print(text, flush=True)
        elif found[1] == "Cached":
            self.cached.add(found[2])

    def tick(self) -> None:
        """Tell where the run is, if it is time to and something has changed."""
        now = self.clock()
        if not self.planned or now - self.last < (2.0 if self.terminal else EVERY):
            return
        text = self.text(self.ended(), now - self.start)
        if text != self.told:
            self._clear()
            say(text, end="" if self.terminal else "\n")
            self.last, self.told = now, text

    def close(self) -> None:
        """The run has ended: its own words come last."""
        self._clear()

    def text(self, ended: dict[str, int], seconds: float) -> str:
        """'data 3/3, embedding 20/24, scoring 12/99; about 2 min left'."""
        parts = []
        for stage in STAGES:
            done, total = ended.get(stage, 0), self.planned.get(stage, (0, 0.0))[0]
            if total:
                parts.append(f"{stage} {min(done, total)}/{total}")
            elif done:
                parts.append(f"{stage} {done} done")
        left = self._left(ended, seconds)
        return ", ".join(parts) + (f"; about {_words(left)} left" if left else "")

    def ended(self) -> dict[str, int]:
        """Tasks that have ended, per stage, from the log of this run. (The demo has no trace: conf/demo.config.)"""
        stages = {process: stage for stage, processes in STAGES.items() for process in processes}
        names = set(self.cached)
        if self.log.is_file() and self.log.stat().st_mtime >= self.start:
            names |= set(TASK_ENDED.findall(self.log.read_text(errors="replace")))
        processes = [name.partition(" ")[0].rpartition(":")[2] for name in names]
        return dict(Counter(stages[name] for name in processes if name in stages and name != "FETCH"))

    def _left(self, ended: dict[str, int], seconds: float) -> float:
        """Seconds left, if what is to come takes as long as what is done did per estimated second; 0 before much is done."""
        work = sum(seconds_ for _, seconds_ in self.planned.values())
        done = sum(cost * min(ended.get(stage, 0) / total, 1.0) for stage, (total, cost) in self.planned.items() if total)
        return seconds * (work - done) / done if done > 0.05 * work else 0.0

    def _clear(self) -> None:
        if self.terminal and self.told:
            say("\r\033[K", end="")
            self.told = ""


def _words(seconds: float) -> str:
    return f"{max(10, round(seconds, -1)):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
