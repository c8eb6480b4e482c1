"""A task that fails loses its own result alone, and what it said reaches table, report and console."""

import base64
import html
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from plumbline import __version__

from .conftest import ROOT, copy_of_repo, plumb_run
from .receivers import mail_server, parsed, web_server

pytestmark = pytest.mark.pipeline
SMTP = "mail {{\n    from = 'plumbline@example.org'\n    smtp.host = '127.0.0.1'\n    smtp.port = {port}\n}}\n"
METHODS = """section_name: How we did it
description: with ${workflow.manifest.name} ${workflow.manifest.version}
data: |
  <p>Cells were counted for \\$5 by hand &amp; eye.</p>
"""
TITLE = 'Zoë\'s <b>screen</b> $(touch pwned) & "more"'


def announced(folder, mails, hook) -> list:
    """Options for a report of one's own that is announced to servers of this machine."""
    (folder / "mail.config").write_text(SMTP.format(port=mails.server_address[1]))
    (folder / "own.yml").write_text("intro_text: words of our own\ncustom_logo_url: https://example.org/lab\n")
    (folder / "methods.yml").write_text(METHODS)
    (folder / "lab.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><title>the lab</title></svg>')
    report = ["--multiqc_title", TITLE, "--multiqc_config", folder / "own.yml", "--multiqc_logo", folder / "lab.svg"]
    report += ["--multiqc_methods_description", folder / "methods.yml"]
    hook_url = f"http://127.0.0.1:{hook.server_address[1]}/secret"
    return [*report, "-c", folder / "mail.config", "--email_on_fail", "a@example.org", "--hook_url", hook_url]


@pytest.fixture(scope="module")
def received():
    """A mail server and a web server, which get what the run announces."""
    with mail_server() as mails, web_server() as hook:
        yield mails, hook


# two tasks: one that has a fault, and one that is killed where others run beside it, as for want of memory
ENDS = {
    "faulty": 'raise ValueError("a fault of mine")',
    "crowded": "multiprocessing.parent_process() and os.kill(os.getpid(), 9)",
}


@pytest.fixture(scope="module")
def lost(tiny_sheet, tmp_path_factory, received):
    """(a run in which an embedding has the rows of other cells and two of three tasks end badly, its tasks, those resumed)."""
    repo, folder = copy_of_repo(tmp_path_factory.mktemp("faulty")), tmp_path_factory.mktemp("lost")
    for name, line in ENDS.items():
        add_task(repo / "bin/plumbline/tasks", name, line)
    np.savez(folder / "mine.npz", cell_id=np.array(["nobody"]), embedding=np.ones((1, 2), np.float32))
    (folder / "embeddings.csv").write_text(f"name,dataset,path\nmine,tiny,{folder / 'mine.npz'}\n")
    options = ["--models", "pca", "--tasks", "consistency,faulty,crowded", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
    options += ["--input", tiny_sheet, "--embeddings", folder / "embeddings.csv", "-profile", "test"]
    options += announced(folder, *received)
    first = plumb_run(folder, *options, repo=repo)
    shutil.copytree(first.results, folder / "first")
    tasks = first.tasks()
    for server in received:
        server.first = list(server.received)
    return first, tasks, plumb_run(folder, *options, "-resume", repo=repo).tasks()


def add_task(folder, name: str, line: str) -> None:
    """The task of docs/adding_a_task.md with a first line that ends it."""
    text = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/adding_a_task.md").read_text(), re.M | re.S)[0]
    text = text.replace('"isotropy"', f'"{name}"').replace('"effective_dimensions"', f'"dimensions_{name}"')
    text = text.replace("import numpy as np", "import multiprocessing\nimport os\n\nimport numpy as np", 1)
    body = "    batches = np.unique(view.screen.batch)\n"
    assert body in text
    (folder / f"{name}.py").write_text(text.replace(body, f"    {line}\n{body}"))


@pytest.fixture(scope="module")
def scores(lost):
    return pd.read_parquet(lost[0].folder / "first" / "scores.parquet")


def test_the_run_ends_with_its_report_and_an_exit_code(lost):
    assert lost[0].code != 0
    assert (lost[0].results / "multiqc_report.html").is_file()


def test_tasks_that_share_a_process_fail_alone(lost, scores):
    """What ended badly in company is tried once more on its own."""
    by_task = {task: set(part["status"]) for task, part in scores[scores["variant"] == "pca"].groupby("task")}
    assert by_task["crowded"] == {"ok"}
    assert "ok" in by_task["consistency"]
    assert by_task["faulty"] == {"failed"}
    scoring = {name.partition(":")[2]: how for name, how in lost[1].items() if name.startswith("EVALUATE")}
    assert scoring == {
        "EVALUATE_TOGETHER (tiny.pca.42)": "COMPLETED",
        "EVALUATE_CPU (tiny.pca.42.crowded)": "COMPLETED",
        "EVALUATE_CPU (tiny.pca.42.faulty)": "FAILED",
    }


def test_the_reason_stands_in_the_row_with_the_folder_of_the_task(lost, scores):
    said = {"mine": "EMBED failed: mine.npz", "pca": "EVALUATE failed: ValueError: a fault of mine (exit status 1)"}
    for variant, start in said.items():
        rows = scores[(scores["variant"] == variant) & (scores["status"] == "failed")]
        for reason in rows["reason"].unique():
            assert reason.startswith(start)
            assert "(exit status 1)" in reason
            assert (lost[0].folder / reason.rpartition("its folder: ")[2] / ".command.err").is_file()
        assert len(rows)
    assert set(scores.loc[scores["variant"] == "mine", "status"]) == {"failed"}


def test_the_reason_is_said_on_the_console_and_in_the_report(lost):
    assert "EMBED_CPU (tiny.mine) failed: mine.npz" in lost[0].output
    page = (lost[0].results / "multiqc_report.html").read_text()
    assert "EMBED failed: mine.npz" in page
    assert "ValueError: a fault of mine" in page


def test_a_resumed_run_repeats_what_failed_and_nothing_else(lost):
    again = {name for name, how in lost[2].items() if how != "CACHED" and name.startswith(("PREPARE", "EMBED", "EVALUATE"))}
    assert again == {"EMBED:EMBED_CPU (tiny.mine)", "EVALUATE:EVALUATE_CPU (tiny.pca.42.faulty)"}


def test_the_report_has_title_settings_logo_and_methods_of_the_user(lost):
    page = (lost[0].folder / "first" / "multiqc_report.html").read_text()
    [shown] = re.findall("<title>(.*): MultiQC Report</title>", page)
    assert "<b>" not in shown
    assert html.unescape(shown) == TITLE
    assert not list(lost[0].folder.rglob("pwned"))
    assert "words of our own" in page
    assert "https://example.org/lab" in page
    assert base64.b64encode((lost[0].folder / "lab.svg").read_bytes()).decode() in page
    assert "<p>Cells were counted for $5 by hand &amp; eye.</p>" in page
    assert f"with plumbline/plumbline {__version__}" in page
    assert page.index("How we did it") < page.index(">Methods<")


def test_the_failure_is_mailed_with_its_reason_and_the_report(lost, received):
    [mail] = [parsed(mail) for mail in received[0].first]
    assert (mail["to"], mail["from"]) == ("a@example.org", "plumbline@example.org")
    assert mail["subject"].endswith("completed, but 2 results failed")
    text = mail.get_body(("plain",)).get_content()
    assert "tiny.mine: mine.npz" in text
    assert (lost[0].folder / "first" / "summary.md").read_text().splitlines()[0] in text
    [report] = [part for part in mail.walk() if part.get_filename() == "multiqc_report.html"]
    assert report.get_content().replace("\r\n", "\n") == (lost[0].folder / "first" / "multiqc_report.html").read_text()


def test_the_failure_is_posted_with_its_reason(lost, received):
    [(address, message)] = received[1].first
    assert address == "/secret"
    assert "tiny.mine: mine.npz" in str(message)
    assert "secret" not in str(message)


def test_whom_a_run_tells_is_no_part_of_what_it_keeps(lost):
    """A report and the parameters of a run are shared; an address of a hook is a key, an e-mail is someone's."""
    for kept in [lost[0].info("params", "json"), lost[0].folder / "first" / "multiqc_report.html"]:
        assert "/secret" not in kept.read_text()
        assert "a@example.org" not in kept.read_text()
