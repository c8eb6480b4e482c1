"""The demo tells where it is in plain words, and not a line per task."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from launcher.launch import wait
from launcher.progress import Log, Progress
from launcher.remaining import Prices

RUN = Path(__file__).resolve().parents[1] / "data" / "demo_run"  # the lines on tasks of the log of a demo, and its plan's costs
DEMO = """Estimate: 56 tasks, 3 min of processor time, about 91 s on 2 processors, give or take a factor of two.
    25 x EMBED         44 s of processor time
    22 x EVALUATE     102 s of processor time
     3 x PREPARE        3 s of processor time
     6 x REPORT        21 s of processor time
"""

ESTIMATE = """Estimate: 126 tasks, 3 min of processor time, about 78 s on 2 processors.
    10 x EMBED         50 s of processor time
    40 x EVALUATE     2 min of processor time
     2 x PREPARE        2 s of processor time
"""
# as Nextflow 25.04.3 writes it
ENDED = (
    "Nov-29 23:29:53.899 [Task monitor] DEBUG n.processor.TaskPollingMonitor - Task completed > TaskHandler[id: 2; "
    "name: PLUMBLINE:{name} ({tag}); status: {status}; exit: 0; error: -; workDir: w/d4/36c40a81bd1658144857064a50f6dc]\n"
)


def log(folder, status="COMPLETED", **ended):
    lines = [ENDED.format(name=name, tag=tag, status=status) for name, n in ended.items() for tag in range(n)]
    (folder / "nextflow.log").write_text("".join(lines))


def made(tmp_path, clock, terminal=False):
    progress = Progress(tmp_path / "nextflow.log", clock=lambda: clock[0], terminal=terminal)
    for line in ESTIMATE.splitlines():
        progress.line(line)
    return progress


def test_stages_and_tasks(tmp_path):
    progress = made(tmp_path, [0.0])
    log(tmp_path, FETCH=3, PREPARE=2, EMBED_CPU=4, EMBED_GPU=1, EVALUATE_TOGETHER=4, EVALUATE_CPU=2, MAP=1, ESTIMATE=1)
    progress.tick()
    assert progress.text(0.0).startswith("data 2/2, embedding 5/10, scoring 6/40, report 1 done")
    progress.line("[ab/cdef01] Cached process > PLUMBLINE:EMBED:EMBED_CPU (kang.pca.42)")
    assert "embedding 6/10" in progress.text(0.0)


def test_what_is_not_this_runs_or_has_not_ended_is_not_counted(tmp_path):
    for status in ("RUNNING", "COMPLETED"):
        log(tmp_path, status=status, EMBED_CPU=4)
        progress = made(tmp_path, [0.0 if status == "RUNNING" else 1e12])
        progress.tick()
        assert "embedding 0/10" in progress.text(0.0)


def test_the_log_is_read_on_from_where_it_was(tmp_path):
    path = tmp_path / "nextflow.log"
    path.write_text("one\ntwo\nthr")
    tail = Log(path, 0.0)
    assert tail.lines() == ["one", "two"]
    assert tail.lines() == []
    with open(path, "a") as stream:
        stream.write("ee\nfour\n")
    assert tail.lines() == ["three", "four"]
    path.rename(tmp_path / "nextflow.log.1")  # as Nextflow does with the log of an earlier run
    assert tail.lines() == []
    path.write_text("a new and longer first line\n")
    assert tail.lines() == ["a new and longer first line"]
    assert Log(path, 1e12).lines() == [], "last written before the run began"


def replayed(tmp_path, cached=()):
    """(second, seconds that are left, seconds said to be left) of a recorded demo, every ten seconds; and its last words."""
    clock, path = [0.0], tmp_path / "nextflow.log"
    progress = Progress(path, RUN / "estimate.tsv", clock=lambda: clock[0], terminal=False)
    for line in DEMO.splitlines():
        progress.line(line)
    for name in cached:
        progress.line(f"[ab/cdef01] Cached process > {name}")
    events = [(*(map(float, line[7:19].split(":"))), line) for line in (RUN / "nextflow.txt").read_text().splitlines(True)]
    times = [3600 * hours + 60 * minutes + seconds for hours, minutes, seconds, _ in events]
    start, end, found = min(times), max(times), []
    for second in range(int(end - start)):
        clock[0] = float(second)
        new = [event[-1] for event, at in zip(events, times, strict=True) if second - 1 < at - start <= second]
        with open(path, "a") as stream:
            stream.write("".join(line for line in new if not any(name in line for name in cached)))
        progress._read(clock[0])
        if second % 10 == 0:
            found.append((second, end - start - second, progress.tasks.seconds(progress.prices(), progress.cpus, clock[0])))
    return found, progress.text(clock[0])


def test_the_time_left_is_honest_while_a_recorded_run_goes_on(tmp_path):
    found, _ = replayed(tmp_path)
    ends = np.array([second + said for second, _, said in found])
    true = found[0][1]
    assert ends[0] == pytest.approx(91, abs=2), "before anything has run: what the estimate says"
    assert (ends[2:] > true / 2).all()
    assert (ends[2:] < 1.3 * true).all()
    assert (np.abs(np.diff(ends)) < 0.15 * true).all(), "never jumping"
    assert found[-1][2] < 20
    assert [said for _, _, said in found][-6:] == sorted([said for _, _, said in found][-6:], reverse=True)


def test_tasks_that_were_cached_are_no_work(tmp_path):
    whole, _ = replayed(tmp_path)
    (tmp_path / "nextflow.log").unlink()
    names = set(
        re.findall(r"Submitted process > (\S+(?:EMBED_|PREPARE|EVALUATE_)\S* \(\S+\))", (RUN / "nextflow.txt").read_text())
    )
    found, text = replayed(tmp_path, cached=tuple(names))
    assert found[0][2] < whole[0][2] / 3
    assert "embedding 25/25" in text


def test_a_table_of_another_run_is_not_taken(tmp_path):
    totals = {"EMBED": (25, 44.0), "EVALUATE": (22, 102.0), "PREPARE": (3, 3.0), "REPORT": (6, 21.0)}
    embed = "PLUMBLINE:EMBED:EMBED_GPU (kang_demo.scvi.42)"
    ours = Prices(totals, RUN / "estimate.tsv")
    assert ours.of(embed) == pytest.approx(8.4, abs=0.5)
    assert ours.of("PLUMBLINE:FETCH (kang_demo)") == 0
    assert Prices(totals | {"EMBED": (24, 44.0)}, RUN / "estimate.tsv").of(embed) == 44 / 24
    assert Prices(totals, tmp_path / "none.tsv").of(embed) == 44 / 25


def test_a_log_file_gets_a_line_now_and_then_and_no_line_per_task(tmp_path, capfd):
    clock = [0.0]
    progress = made(tmp_path, clock)
    for second in range(1, 61):
        clock[0] = float(second)
        progress.line(f"[ab/cdef{second:02d}] Submitted process > PLUMBLINE:EVALUATE:EVALUATE_TOGETHER (kang.pca)")
        log(tmp_path, EVALUATE_TOGETHER=second)
        progress.tick()
    progress.line("WARNING: 2 batches have no controls")
    out, err = capfd.readouterr()
    assert "Submitted" not in out
    assert "Estimate: 126 tasks" in out
    assert out.endswith("WARNING: 2 batches have no controls\n")
    assert len(err.splitlines()) == 3
    assert err.splitlines()[0].startswith("data 0/2, embedding 0/10, scoring 20/40")


def test_on_a_terminal_one_line_is_written_over(tmp_path, capfd):
    clock = [0.0]
    progress = made(tmp_path, clock, terminal=True)
    clock[0] = 5.0
    progress.tick()
    progress.close()
    assert capfd.readouterr().err == "data 0/2, embedding 0/10, scoring 0/40; about 90 s left\r\033[K"


def test_lines_of_a_child_pass_through_with_its_exit_code(tmp_path, capfd):
    script = "print('one'); print('[ab/cdef01] Cached process > X'); print('é', end=''); raise SystemExit(3)"
    assert wait([sys.executable, "-X", "utf8", "-c", script], {}, Progress(tmp_path, terminal=False)) == 3
    assert capfd.readouterr().out == "one\né\n"
