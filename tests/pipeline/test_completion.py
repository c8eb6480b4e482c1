"""How a run announces its end: mails and messages arrive at real servers of this machine, and never change how it ends."""

import os
from pathlib import Path

import pytest

from .conftest import Run, plumb_run
from .receivers import mail_server, parsed, web_server

pytestmark = pytest.mark.pipeline
SENDMAIL = """#!/bin/sh
cat > "$SENT_MAIL"
"""


def short_run(folder: Path, sheet: Path, *options: object) -> Run:
    """The shortest run there is: the estimate alone, as a stub."""
    return plumb_run(folder, "--input", sheet, "-profile", "test", "--estimate_only", "-stub-run", *options)


def by_smtp(folder: Path, port: int) -> list[object]:
    """Options that let Nextflow send mails to a server of this machine."""
    text = f"mail {{\n    from = 'plumbline@example.org'\n    smtp.host = '127.0.0.1'\n    smtp.port = {port}\n}}\n"
    (folder / "mail.config").write_text(text)
    return ["-c", folder / "mail.config"]


def test_a_success_is_posted_to_slack_and_mailed_with_sendmail(tiny_sheet, tmp_path, monkeypatch):
    """sendmail is a stand-in that keeps what it gets; slack.com is reached through a proxy, which is a server here."""
    (tmp_path / "sendmail").write_text(SENDMAIL)
    (tmp_path / "sendmail").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SENT_MAIL", str(tmp_path / "sent"))
    with web_server() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
        hook = ["--hook_url", "http://hooks.slack.com/services/T0/B0/secret"]
        people = ["--email", "jane.doe@example.org", "--email_on_fail", "other@example.org"]
        run = short_run(tmp_path, tiny_sheet, *hook, *people, "--plaintext_email")
    assert run.code == 0, run.output
    [(address, message)] = server.received
    assert address.endswith("/services/T0/B0/secret")
    [attachment] = message["attachments"]
    assert attachment["title"].endswith("completed successfully")
    assert attachment["color"] == "good"
    assert "secret" not in str(message)
    mail = parsed((tmp_path / "sent").read_bytes())
    assert mail["to"] == "jane.doe@example.org"
    assert "completed successfully" in mail["subject"]
    assert "text/html" not in [part.get_content_type() for part in mail.walk()]
    assert "completed successfully" in mail.get_body(("plain",)).get_content()
    assert "[plumbline/plumbline] completed successfully" in run.output
    assert "\033" not in run.output  # -ansi-log false, which ./plumb adds where there is no terminal


def test_what_cannot_be_sent_is_a_warning_that_says_why(tiny_sheet, tmp_path):
    with mail_server() as closed:
        port = closed.server_address[1]
    with web_server(404) as server:
        hook = ["--hook_url", f"http://127.0.0.1:{server.server_address[1]}/gone"]
        run = short_run(tmp_path, tiny_sheet, *hook, "--email", "jane.doe@example.org", *by_smtp(tmp_path, port))
    assert run.code == 0, run.output
    assert "The message to --hook_url was refused with status 404: what the server says" in run.output
    assert "The e-mail to jane.doe@example.org was not sent: " in run.output
    assert "refused" in run.output.split("was not sent: ")[1]
    assert (run.results / "pipeline_info/pipeline_report.txt").read_text().startswith("plumbline/plumbline")


def test_a_preview_and_a_success_with_email_on_fail_alone_send_nothing(tiny_sheet, tmp_path):
    with mail_server() as mails, web_server() as server:
        hook = ["--hook_url", f"http://127.0.0.1:{server.server_address[1]}/"]
        preview = short_run(tmp_path, tiny_sheet, *hook, "-preview")
        run = short_run(tmp_path, tiny_sheet, "--email_on_fail", "a@example.org", *by_smtp(tmp_path, mails.server_address[1]))
    assert (preview.code, run.code) == (0, 0), preview.output + run.output
    assert server.received == mails.received == []
