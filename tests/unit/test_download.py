"""Downloads against a local server that can do ranges, cut the line, change the file and refuse."""

import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from plumbline.common.download import digest, download
from plumbline.common.errors import UserError
from plumbline.data.fetching import zenodo_file

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/file serves CONTENT; the server's ``cuts`` says after how many bytes each coming response breaks off."""

    def do_GET(self) -> None:
        state = self.server
        state.requests.append(self.headers.get("Range"))
        name = self.path.partition("?")[0]
        if name in state.errors:
            return self.send_error(state.errors[name])
        if name in state.pages:
            return self.answer(200, json.dumps(state.pages[name]).encode())
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range", state.tag) == state.tag
        if not (wanted and state.ranges and unchanged):
            return self.answer(200, state.content)
        start = int(wanted[1])
        if start >= len(state.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(state.content)}")
            return self.end_headers()
        return self.answer(206, state.content[start:], start)

    def answer(self, status: int, body: bytes, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{start + len(body)}")
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(body[:cut])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.tag = CONTENT, True, '"one"'
    server.requests, server.cuts, server.errors, server.pages = [], [], {}, {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_whole_file_with_checksums(server, tmp_path):
    path = download(f"{server.url}/file", tmp_path / "deep" / "file", SHA256, MD5, len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    download(f"{server.url}/file", path, SHA256)
    assert server.requests == [None], "a file that is there is not fetched again"


def test_a_cut_line_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [100_000, 50_000]
    download(f"{server.url}/file", tmp_path / "file", SHA256, pause=0)
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]
    assert digest(tmp_path / "file", "md5") == MD5


def test_the_next_run_resumes_what_an_earlier_left(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:123_456])
    download(f"{server.url}/file", tmp_path / "file", SHA256)
    assert server.requests == ["bytes=123456-"]
    assert not (tmp_path / "file.part").exists()


def test_a_complete_part_is_only_verified(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(f"{server.url}/file", tmp_path / "file", SHA256).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_anew(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert download(f"{server.url}/file", tmp_path / "file", SHA256, pause=0).read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_starts_anew(server, tmp_path):
    server.cuts = [100_000]
    server.errors = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plumbline.common.download.ATTEMPTS", 1)
        with pytest.raises(UserError, match="connection was cut"):
            download(f"{server.url}/file", tmp_path / "file", pause=0)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert download(f"{server.url}/file", tmp_path / "file", pause=0).read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    assert download(f"{server.url}/file", tmp_path / "file", SHA256, pause=0).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"size": 7}])
def test_a_wrong_checksum_leaves_nothing(server, tmp_path, known):
    with pytest.raises(UserError, match="expected"):
        download(f"{server.url}/file", tmp_path / "file", **known)
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "file.part").exists()


def test_a_wrong_file_already_there_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"other")
    with pytest.raises(UserError, match=r"has the sha256 .* Remove .*file and fetch it again"):
        download(f"{server.url}/file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == b"other", "the user's file is the user's"


@pytest.mark.parametrize(("code", "message"), [(404, "moved or removed"), (403, "permission or a login"), (401, "permission")])
def test_refusals_say_what_to_do(server, tmp_path, code, message):
    server.errors["/file"] = code
    with pytest.raises(UserError, match=message) as caught:
        download(f"{server.url}/file", tmp_path / "file", pause=0)
    assert f"put it at {tmp_path / 'file'}" in str(caught.value)
    assert len(server.requests) == 1, "a refusal is not repeated"
    assert not (tmp_path / "file").exists()


def test_a_busy_server_is_asked_again(server, tmp_path, monkeypatch):
    server.errors["/file"] = 503
    monkeypatch.setattr("time.sleep", lambda seconds: server.errors.clear())
    assert download(f"{server.url}/file", tmp_path / "file", SHA256).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_no_network(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=r"cannot be fetched .*refused.*on a machine that can"):
        download(f"http://127.0.0.1:{port}/file", tmp_path / "file", pause=0)


def test_two_processes_fetch_once(server, tmp_path):
    threads = [
        threading.Thread(target=download, args=(f"{server.url}/file", tmp_path / "file", SHA256), kwargs={"pause": 0})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None]
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_zenodo_records_name_the_file(server, tmp_path):
    server.pages = {
        "/1": {"files": [{"key": "other.h5ad", "size": 1, "checksum": "md5:0"}]},
        "/2": {"files": [{"key": "a.h5ad", "size": len(CONTENT), "checksum": f"md5:{MD5}"}]},
    }
    url, known = zenodo_file("zenodo:1+2/a.h5ad", server.url)
    assert (url, known) == (f"{server.url}/2/files/a.h5ad/content", {"md5": MD5, "size": len(CONTENT)})
    assert download(url, tmp_path / "a.h5ad", **known).read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"no file b.h5ad in the Zenodo records 1\+2"):
        zenodo_file("zenodo:1+2/b.h5ad", server.url)
    server.errors["/3"] = 404
    with pytest.raises(UserError, match="404"):
        zenodo_file("zenodo:3/a.h5ad", server.url)
