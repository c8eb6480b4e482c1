"""How long a run will still take: what its plan says of the tasks to come, at the pace of the tasks so far."""

import csv
from pathlib import Path

# step of the estimate -> its processes; EVALUATE's are priced by data set, with START
PROCESSES = {
    "PREPARE": ("PREPARE", "PREPARE_HELD_OUT"),
    "EMBED": ("EMBED_CPU", "EMBED_GPU"),
    "EVALUATE": ("EVALUATE_TOGETHER", "EVALUATE_CPU", "EVALUATE_GPU"),
    "EXPERIMENT": (
        "ABLATE_INTEGRITY",
        "COMPARE_CONTEXTS",
        "DESCRIBE_COUNTS",
        "HOLD_OUT",
        "RECALL_GENES",
        "SCORE_FEWER_CELLS",
    ),
    "REPORT": ("MAP", "SUMMARISE", "REPORT", "MULTIQC"),
}
LAST = ("SUMMARISE", "REPORT", "MULTIQC")  # one after another, when all else has ended
STEP_OF = {process: step for step, processes in PROCESSES.items() for process in processes}
TRUST = 0.2  # share of the whole work that the estimate's own pace counts for beside the pace that is measured


def process_of(name: str) -> str:
    """'EMBED_CPU' of 'PLUMBLINE:EMBED:EMBED_CPU (kang.pca.42)'."""
    return name.partition(" ")[0].rpartition(":")[2]


class Prices:
    """Processor seconds of each task of a plan.

    totals: step -> (tasks, their seconds together), as the estimate prints them. table: estimate.tsv, which tells tasks of a
    step apart; without it, all tasks of a step cost the same.
    """

    def __init__(self, totals: dict[str, tuple[int, float]], table: Path | None = None) -> None:
        self.totals = totals
        each: dict[tuple[str, str], list[float]] = {}  # (step, beginning of a tag, or process and tag) -> [tasks, seconds]
        for row in _rows(table):
            n = 0.0 if row["step"] == "EVALUATE" else float(row["n_tasks"])  # START counts the processes of EVALUATE
            known = each.setdefault(_key(row), [0.0, 0.0])
            known[0] += n
            known[1] += float(row["cpu_seconds"])
        counted = {step: sum(n for (of, _), (n, _) in each.items() if of == step) for step in totals}
        # until this run has published its table, that of an earlier one may lie there
        self.each = each if counted == {step: n for step, (n, _) in totals.items()} else {}

    def of(self, name: str) -> float:
        """What one task costs; 0 for one that is not in the plan (a download)."""
        process, tag = process_of(name), name.partition(" ")[2].strip("()")
        step = STEP_OF.get(process, "")
        keys = [tag, f"{process} {tag}", process]
        fits = [key for known, key in self.each if known == step and any(_begins(word, key) for word in keys)]
        n, seconds = self.each[(step, max(fits, key=len))] if fits else self.totals.get(step, (0, 0.0))
        return seconds / n if n else 0.0


def _key(row: dict[str, str]) -> tuple[str, str]:
    step, name, dataset = row["step"], row["name"], row["dataset"]
    if step == "EMBED":
        return step, f"{dataset}.{name}"
    if step in ("EXPERIMENT", "REPORT"):
        return step, f"{name} {dataset}".strip()
    return "EVALUATE" if step == "START" else step, dataset


def _rows(table: Path | None) -> list[dict[str, str]]:
    if table is None or not table.is_file():
        return []
    with open(table, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def _begins(word: str, key: str) -> bool:
    """'kang.pca.42' is of 'kang.pca', and not of 'kang.pc'."""
    return word == key or word.startswith(f"{key}.")


class Remaining:
    """The tasks of a run as they are submitted and end, and how long those to come will take."""

    def __init__(self) -> None:
        self.running: dict[str, float] = {}  # name -> when it was submitted
        self.took: dict[str, float] = {}  # name -> seconds, of those that ended
        self.cached: set[str] = set()
        # of the first task of the plan: a download, which comes before, says nothing of the pace
        self.start: float | None = None

    def submit(self, name: str, now: float) -> None:
        """A task was handed to the machine, maybe again."""
        self.took.pop(name, None)
        self.running[name] = now
        if self.start is None and process_of(name) in STEP_OF:
            self.start = now

    def end(self, name: str, now: float) -> None:
        """A task has ended, well or badly; a bad one may be submitted again."""
        self.took[name] = now - self.running.pop(name, now)

    @property
    def closing(self) -> bool:
        """Whether only the end of the run is left: what was planned before and has not come will not come."""
        return any(process_of(name) in LAST for name in (*self.running, *self.took, *self.cached))

    def seconds(self, prices: Prices, cpus: int, now: float) -> float:
        """Seconds left. A task of the end, which has the machine for itself, is as much work as all processors do meanwhile."""

        def work(name: str) -> float:
            return prices.of(name) * (cpus if process_of(name) in LAST else 1)

        last = {process: work(process) for process in LAST} if "REPORT" in prices.totals else {}
        total = sum(seconds for _, seconds in prices.totals.values()) + sum(last.values()) * (1 - 1 / cpus)
        trusted = TRUST * total
        slower = self._slower(prices, trusted)
        done = sum(map(work, self.took))
        done += sum(work(name) * _part(now - since, prices.of(name) * slower) for name, since in self.running.items())
        left = total - done - sum(map(work, self.cached))
        if self.closing:
            ended = {process_of(name) for name in (*self.took, *self.cached)}
            left = sum(seconds for process, seconds in last.items() if process not in ended)
        pace = (now - (self.start or now) + trusted / cpus) / (done + trusted)
        return max(left, 0.0) * pace

    def _slower(self, prices: Prices, trusted: float) -> float:
        """How much longer the tasks that ended took than the plan said."""
        took = {name: seconds for name, seconds in self.took.items() if process_of(name) in STEP_OF}
        return (sum(took.values()) + trusted) / (sum(map(prices.of, took)) + trusted)


def _part(seconds: float, expected: float) -> float:
    """How much of a running task is done, if it takes as long as expected: never all of it."""
    return min(seconds / expected, 0.95) if expected else 0.0
