"""How a run announces its end, to a web server of this machine and to a stand-in for sendmail. By SMTP: test_failures.py."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT
from .receivers import parsed, web_server

pytestmark = pytest.mark.pipeline
# keeps what it gets, and knows nobody outside of example.org
SENDMAIL = """#!/bin/sh
cat > sent && grep -q 'To: .*@example.org' sent || { echo "no such domain" >&2; exit 67; }
mv sent "sent.$(date +%N)"
"""
SLACK = "http://hooks.slack.com/services/T0/B0/secret"
TEAMS = "http://example.webhook.office.com/webhookb2/secret"


def ended(folder: Path, port: int, *cases: dict, options: tuple[str, ...] = ()) -> str:
    """What a run prints that announces its end with these parameters, one after another."""
    (folder / "sendmail").write_text(SENDMAIL)
    (folder / "sendmail").chmod(0o755)
    common = {"outdir": "results", "max_multiqc_email_size": "25.MB"}
    (folder / "cases.json").write_text(json.dumps([common | case for case in cases]))
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "run", ROOT / "tests/pipeline/completion", "--cases", "cases.json", *options]
    # the proxy leads to the server of the test, whatever the address is
    variables = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "http_proxy": f"http://127.0.0.1:{port}"}
    done = subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Announcements of a success: [what was printed, mails, posted messages]."""
    folder = tmp_path_factory.mktemp("told")
    html = {"email": "jane.doe@example.org", "email_on_fail": "other@example.org", "hook_url": SLACK}
    plain = {"email": "j@example.org", "plaintext_email": True, "hook_url": TEAMS, "monochrome_logs": True}
    nobody = {"email_on_fail": "other@example.org"}
    with web_server(202) as server:
        printed = ended(folder, server.server_address[1], html, plain, nobody, {"email": "x@no.where"})
    mails = [parsed(path.read_bytes()) for path in folder.glob("sent.*")]
    return printed + (folder / ".nextflow.log").read_text(), {mail["to"]: mail for mail in mails}, dict(server.received)


def test_a_success_is_mailed_to_its_address_alone(told):
    _, mails, _ = told
    assert set(mails) == {"jane.doe@example.org", "j@example.org"}
    for mail in mails.values():
        assert mail["subject"].startswith("[lab/pipeline] ")
        assert mail["subject"].endswith(": completed successfully")


def test_a_mail_is_html_and_text_or_text_alone(told):
    _, mails, _ = told
    assert "1.2.3: completed successfully" in mails["j@example.org"].get_body(("plain",)).get_content()
    assert "text/html" not in [part.get_content_type() for part in mails["j@example.org"].walk()]
    kinds = [part.get_content_type() for part in mails["jane.doe@example.org"].walk()]
    assert "text/plain" in kinds
    assert "text/html" in kinds
    page = mails["jane.doe@example.org"].get_body(("html",)).get_content()
    assert "<p style" in page
    assert "The run completed successfully." in page


def test_slack_and_teams_get_what_they_take_and_no_address_of_a_hook(told):
    _, _, posted = told
    [slack] = posted[SLACK]["attachments"]
    assert (slack["title"], slack["color"]) == ("lab/pipeline 1.2.3: completed successfully", "good")
    [teams] = posted[TEAMS]["attachments"]
    assert teams["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert [block["type"] for block in teams["content"]["body"]] == ["TextBlock", "FactSet"]
    assert "secret" not in json.dumps(list(posted.values()))


def test_what_cannot_be_sent_is_a_warning_that_says_why(told, tmp_path):
    printed, _, _ = told
    assert "The e-mail to x@no.where was not sent: " in printed
    assert "no such domain" in printed
    with web_server(404) as server:
        printed = ended(tmp_path, server.server_address[1], {"hook_url": TEAMS}, {"hook_url": "https://127.0.0.1:1/"})
    assert "The message to --hook_url was refused with status 404: what the server says" in printed
    assert "The message to --hook_url was not sent: " in printed
    assert "secret" not in printed


def test_colours_unless_monochrome(told):
    """In Nextflow's log: without a terminal it prints none."""
    lines = [line for line in told[0].splitlines() if " INFO " in line and "completed successfully" in line]
    assert ["\033[0;32m" in line for line in lines] == [True, False, True, True]


def test_a_preview_announces_nothing(tmp_path):
    """./plumb asks Nextflow for one before it makes environments."""
    with web_server() as server:
        printed = ended(tmp_path, server.server_address[1], {"hook_url": SLACK}, options=("-preview",))
    assert server.received == []
    assert "completed" not in printed
