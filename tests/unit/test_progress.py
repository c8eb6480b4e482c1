"""The demo tells where it is in plain words, and not a line per task."""

import sys

from launcher.launch import wait
from launcher.progress import Progress

ESTIMATE = """Estimate: 126 tasks, 3 min of processor time, about 78 s on 2 processors.
    10 x EMBED         50 s of processor time
    40 x EVALUATE      2 min of processor time
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


def test_stages_tasks_and_the_time_left(tmp_path):
    progress = made(tmp_path, [0.0])
    assert progress.text({}, 5.0) == "data 0/2, embedding 0/10, scoring 0/40"
    # a third of the estimated 172 s of work is done after 100 s: twice that is left
    text = progress.text({"data": 2, "embedding": 10, "scoring": 2}, 100.0)
    assert text == "data 2/2, embedding 10/10, scoring 2/40; about 3 min left"
    assert progress.text({"data": 2, "embedding": 10, "scoring": 40, "report": 2}, 300.0).endswith(
        "scoring 40/40, report 2 done"
    )


def test_counts_come_from_the_log_of_this_run(tmp_path):
    log(tmp_path, FETCH=3, PREPARE=2, EMBED_CPU=4, EMBED_GPU=1, EVALUATE_TOGETHER=4, EVALUATE_CPU=2, MAP=1, ESTIMATE=1)
    progress = made(tmp_path, [0.0])
    assert progress.ended() == {"data": 2, "embedding": 5, "scoring": 6, "report": 1}
    progress.line("[ab/cdef01] Cached process > PLUMBLINE:EMBED:EMBED_CPU (kang.pca.42)")
    assert progress.ended()["embedding"] == 6
    log(tmp_path, status="RUNNING", EMBED_CPU=4)
    assert progress.ended() == {"embedding": 1}
    log(tmp_path, EMBED_CPU=4)
    progress.start = 1e12  # the log of an earlier run
    assert progress.ended() == {"embedding": 1}


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
    assert capfd.readouterr().err == "data 0/2, embedding 0/10, scoring 0/40\r\033[K"


def test_lines_of_a_child_pass_through_with_its_exit_code(tmp_path, capfd):
    script = "print('one'); print('[ab/cdef01] Cached process > X'); print('é', end=''); raise SystemExit(3)"
    assert wait([sys.executable, "-X", "utf8", "-c", script], {}, Progress(tmp_path, terminal=False)) == 3
    assert capfd.readouterr().out == "one\né\n"
