"""A task that fails loses its own result alone, and what it said reaches table, report and console."""

import base64
import html
import re

import numpy as np
import pandas as pd
import pytest

from plumbline import __version__

from .conftest import plumb_run
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


@pytest.fixture(scope="module")
def lost(tiny_sheet, tmp_path_factory, received):
    """A run in which one of two embeddings has the rows of other cells."""
    folder = tmp_path_factory.mktemp("lost")
    np.savez(folder / "mine.npz", cell_id=np.array(["nobody"]), embedding=np.ones((1, 2), np.float32))
    (folder / "embeddings.csv").write_text(f"name,dataset,path\nmine,tiny,{folder / 'mine.npz'}\n")
    options = ["--models", "pca", "--tasks", "consistency", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
    sheets = ["--input", tiny_sheet, "--embeddings", folder / "embeddings.csv"]
    return plumb_run(folder, *sheets, *options, *announced(folder, *received), "-profile", "test")


def test_the_run_ends_with_its_report_and_an_exit_code(lost):
    assert lost.code != 0
    assert (lost.results / "multiqc_report.html").is_file()


def test_the_reason_stands_in_the_row_with_the_folder_of_the_task(lost):
    scores = pd.read_parquet(lost.results / "scores.parquet")
    assert set(scores[scores["variant"] == "pca"]["status"]) <= {"ok", "not_applicable"}
    rows = scores[scores["variant"] == "mine"]
    assert set(rows["status"]) == {"failed"}
    reason = rows["reason"].unique().item()
    assert reason.startswith("EMBED failed: mine.npz")
    assert "(exit status 1)" in reason
    folder = reason.rpartition("its folder: ")[2]
    assert (lost.folder / folder / ".command.err").is_file()


def test_the_reason_is_said_on_the_console_and_in_the_report(lost):
    assert "EMBED_CPU (tiny.mine) failed: mine.npz" in lost.output
    assert "EMBED failed: mine.npz" in (lost.results / "multiqc_report.html").read_text()


def test_the_report_has_title_settings_logo_and_methods_of_the_user(lost):
    page = (lost.results / "multiqc_report.html").read_text()
    [shown] = re.findall("<title>(.*): MultiQC Report</title>", page)
    assert "<b>" not in shown
    assert html.unescape(shown) == TITLE
    assert not list(lost.folder.rglob("pwned"))
    assert "words of our own" in page
    assert "https://example.org/lab" in page
    assert base64.b64encode((lost.folder / "lab.svg").read_bytes()).decode() in page
    assert "<p>Cells were counted for $5 by hand &amp; eye.</p>" in page
    assert f"with plumbline/plumbline {__version__}" in page
    assert page.index("How we did it") < page.index(">Methods<")


def test_the_failure_is_mailed_with_its_reason_and_the_report(lost, received):
    [mail] = [parsed(mail) for mail in received[0].received]
    assert (mail["to"], mail["from"]) == ("a@example.org", "plumbline@example.org")
    assert mail["subject"].endswith("completed, but 1 result failed")
    text = mail.get_body(("plain",)).get_content()
    assert "tiny.mine: mine.npz" in text
    assert (lost.results / "summary.md").read_text().splitlines()[0] in text
    [report] = [part for part in mail.walk() if part.get_filename() == "multiqc_report.html"]
    assert report.get_content().replace("\r\n", "\n") == (lost.results / "multiqc_report.html").read_text()


def test_the_failure_is_posted_with_its_reason(lost, received):
    [(address, message)] = received[1].received
    assert address == "/secret"
    assert "tiny.mine: mine.npz" in str(message)
    assert "secret" not in str(message)


def test_whom_a_run_tells_is_no_part_of_what_it_keeps(lost):
    """A report and the parameters of a run are shared; an address of a hook is a key, an e-mail is someone's."""
    for kept in [lost.info("params", "json"), lost.results / "multiqc_report.html"]:
        assert "/secret" not in kept.read_text()
        assert "a@example.org" not in kept.read_text()
