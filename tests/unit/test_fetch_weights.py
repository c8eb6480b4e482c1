"""Checkpoints fetched from a local HTTP server: ranges, resume, wrong checksum, 404, mirrors, instructions."""

import csv
import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import fetch_weights
from plumbline.common.errors import UserError
from plumbline.embedding import checkpoints, weights

BIG = bytes(range(256)) * 4096
WEIGHTS = ("weights_source", "weights_revision", "weights_files", "weights_sha256", "weights_bytes", "weights_licence")
COLUMNS = ("id", "model", *WEIGHTS)


class Server(ThreadingHTTPServer):
    """Serves ``files``; cuts the first answer for a path in ``cut`` after so many bytes; notes every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.seen: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        span = self.headers.get("Range", "")
        self.server.seen.append((self.path, span))
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.server.cut.pop(self.path, None)])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def known(server, tmp_path, monkeypatch):
    """Put rows in a models.csv of the test's own."""

    def write(**rows: dict[str, str]) -> None:
        with open(tmp_path / "models.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows({"id": name, "model": "modl", "weights_source": server.url, **row} for name, row in rows.items())
        monkeypatch.setattr(checkpoints.known_checkpoints, "__defaults__", (tmp_path / "models.csv",))
        monkeypatch.setattr(checkpoints.known_checkpoint, "__defaults__", (tmp_path / "models.csv",))

    return write


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["fetch_weights.py", *map(str, arguments)])
    fetch_weights.main()


def test_files_come_in_the_layout_of_their_source_and_verified(server, known, tmp_path, monkeypatch) -> None:
    server.files = {"/r1/a/config.json": b"{}", "/elsewhere/7": BIG}
    sums, sizes = f";{sha(BIG)}", f";{len(BIG)}"
    files = "a/config.json;a/b/big.bin=elsewhere/7"
    known(m={"weights_revision": "r1", "weights_files": files, "weights_sha256": sums, "weights_bytes": sizes})
    run(monkeypatch, "m", "--output", tmp_path / "w")
    assert (tmp_path / "w/modl/a/config.json").read_bytes() == b"{}"
    assert (tmp_path / "w/modl/a/b/big.bin").read_bytes() == BIG
    server.seen.clear()
    run(monkeypatch, "m", "--output", tmp_path / "w")
    assert server.seen == [], "what is there is kept"


def test_a_cut_transfer_goes_on_where_it_stopped(server, known, tmp_path) -> None:
    server.files, server.cut = {"/big.bin": BIG}, {"/big.bin": 300_000}
    known(m={"weights_files": "big.bin", "weights_sha256": sha(BIG), "weights_bytes": str(len(BIG))})
    fetch_weights.fetch(checkpoints.known_checkpoint("m"), tmp_path, None, pause=0.01)
    assert (tmp_path / "modl/big.bin").read_bytes() == BIG
    assert [span for _, span in server.seen] == ["", "bytes=300000-"]


def test_a_wrong_checksum_leaves_no_file(server, known, tmp_path) -> None:
    server.files = {"/a.bin": b"other"}
    known(m={"weights_files": "a.bin", "weights_sha256": sha(b"right")})
    with pytest.raises(UserError, match=r"sha256.*\n# On a machine with network"):
        fetch_weights.fetch(checkpoints.known_checkpoint("m"), tmp_path, None)
    assert list((tmp_path / "modl").glob("a.bin*")) == []


def test_a_damaged_file_already_there_is_named(server, known, tmp_path) -> None:
    known(m={"weights_files": "a.bin", "weights_sha256": sha(b"right"), "weights_bytes": "5"})
    (tmp_path / "modl").mkdir()
    (tmp_path / "modl/a.bin").write_bytes(b"wrong")
    with pytest.raises(UserError, match=r"a.bin has the sha256 .* expected"):
        fetch_weights.fetch(checkpoints.known_checkpoint("m"), tmp_path, None)


def test_a_missing_file_gives_the_recipe_for_an_air_gapped_machine(server, known, tmp_path) -> None:
    known(m={"weights_files": "x/a.bin", "weights_sha256": sha(b"a")})
    with pytest.raises(UserError) as error:
        fetch_weights.fetch(checkpoints.known_checkpoint("m"), tmp_path, None)
    text = str(error.value)
    assert "404" in text
    assert f"curl --fail --location --continue-at - --output '{tmp_path}/modl/x/a.bin' '{server.url}/x/a.bin'" in text
    assert f"echo '{sha(b'a')}  {tmp_path}/modl/x/a.bin' | sha256sum --check" in text


def test_a_mirror_replaces_the_source(server, known, tmp_path, monkeypatch) -> None:
    server.files = {"/copy/modl/x/a.bin": b"a"}
    known(m={"weights_source": "http://127.0.0.1:9", "weights_files": "x/a.bin=gone/1", "weights_sha256": sha(b"a")})
    run(monkeypatch, "m", "--output", tmp_path, "--mirror", f"{server.url}/copy/")
    assert (tmp_path / "modl/x/a.bin").read_bytes() == b"a"


def test_what_only_a_browser_can_fetch_gives_instructions_then_is_verified(known, tmp_path) -> None:
    known(
        m={
            "weights_source": "https://drive.google.com/drive/folders/1x",
            "weights_files": "x/a.bin",
            "weights_sha256": sha(b"a"),
        }
    )
    checkpoint = checkpoints.known_checkpoint("m")
    with pytest.raises(
        UserError, match=r"browser(.|\n)*Open https://drive.google.com/drive/folders/1x in a browser(.|\n)*a.bin as"
    ):
        fetch_weights.fetch(checkpoint, tmp_path, None)
    (tmp_path / "modl/x").mkdir(parents=True)
    (tmp_path / "modl/x/a.bin").write_bytes(b"b")
    with pytest.raises(UserError, match="sha256"):
        fetch_weights.fetch(checkpoint, tmp_path, None)
    (tmp_path / "modl/x/a.bin").write_bytes(b"a")
    fetch_weights.fetch(checkpoint, tmp_path, None)


@pytest.mark.parametrize("licence", ["non-commercial research", "CC BY-NC-SA 4.0", "Noncommercial use"])
def test_weights_for_non_commercial_use_are_fetched_after_their_licence_is_accepted(
    server, known, tmp_path, monkeypatch, capsys, licence: str
) -> None:
    server.files = {"/a.bin": b"a", "/free.bin": b"f"}
    known(
        free={"weights_files": "free.bin", "weights_licence": "MIT (INC)"},
        m={"weights_files": "a.bin", "weights_licence": licence},
    )
    with pytest.raises(UserError, match=rf"weights of m are not for commercial use .{licence}; {server.url}.*--accept-licence"):
        run(monkeypatch, "free", "m", "--output", tmp_path)
    assert server.seen == [], "nothing is fetched before"
    shown = capsys.readouterr().err
    assert f"m: licence of the weights: {licence}" in shown
    assert "free: licence of the weights: MIT" in shown
    run(monkeypatch, "free", "--output", tmp_path)
    run(monkeypatch, "m", "--output", tmp_path, "--accept-licence")
    assert (tmp_path / "modl/a.bin").read_bytes() == b"a"


def test_the_recipe_and_the_hint_for_a_missing_file_carry_the_licence(known, tmp_path, monkeypatch, capsys) -> None:
    known(m={"weights_files": "a.bin", "weights_licence": "CC BY-NC 4.0"})
    run(monkeypatch, "m", "--output", tmp_path, "--recipe")
    shown = capsys.readouterr().out
    assert shown.startswith("# Licence of the weights: CC BY-NC 4.0 (http")
    assert f"./plumb fetch m --output {tmp_path} --accept-licence" in shown
    assert checkpoints.fetch_hint("m").endswith("./plumb fetch m --accept-licence")


def test_of_the_weights_of_the_repository_these_exclude_commercial_use() -> None:
    restricted = {name for name, checkpoint in checkpoints.known_checkpoints().items() if checkpoint.restricted}
    assert {"scfoundation_t4", "scfoundation_a5"} <= restricted
    assert not {"geneformer_v1", "scgpt", "uce_4l", "cellplm"} & restricted


def archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"pt\n"))
    return buffer.getvalue()


def test_archives_are_unpacked_once_and_only_inside_their_folder(server, known, tmp_path, monkeypatch) -> None:
    server.files = {"/p.tar.gz": archive("in/x.pt"), "/evil.tar.gz": archive("../../x.pt"), "/cut.tar.gz": archive("y")[:30]}
    known(m={"weights_files": "p.tar.gz"}, evil={"weights_files": "evil.tar.gz"}, cut={"weights_files": "cut.tar.gz"})
    run(monkeypatch, "m", "--output", tmp_path / "w")
    assert (tmp_path / "w/modl/in/x.pt").read_bytes() == b"pt\n"
    (tmp_path / "w/modl/in/x.pt").unlink()
    run(monkeypatch, "m", "--output", tmp_path / "w")
    assert not (tmp_path / "w/modl/in/x.pt").exists()
    for name in ("evil", "cut"):
        with pytest.raises(UserError, match="cannot be unpacked"):
            run(monkeypatch, name, "--output", tmp_path / "w")
    assert not (tmp_path / "x.pt").exists()


def test_an_unknown_name_gets_the_close_ones(known, tmp_path, monkeypatch) -> None:
    known(geneformer_v1={"weights_files": "a"})
    with pytest.raises(UserError, match=r"'genformer_v1'. Did you mean 'geneformer_v1'"):
        run(monkeypatch, "genformer_v1", "--output", tmp_path)


def test_a_row_that_does_not_add_up_is_named(known) -> None:
    known(m={"weights_files": "a;b", "weights_sha256": "1;2;3"})
    with pytest.raises(UserError, match="m: weights_sha256 has 3 entries for 2 weights_files"):
        checkpoints.known_checkpoint("m")


def test_the_recipe_is_printed_without_fetching(server, known, tmp_path, monkeypatch, capsys) -> None:
    known(m={"weights_files": "a.bin"})
    run(monkeypatch, "m", "--output", tmp_path / "w", "--recipe")
    assert f"'{server.url}/a.bin'" in capsys.readouterr().out
    assert server.seen == []
    assert not (tmp_path / "w").exists()


def test_the_rows_of_the_repository_are_complete(root: Path) -> None:
    known = checkpoints.known_checkpoints()
    assert {"geneformer_v1", "geneformer_v1_12l", "geneformer_v2_104m", "geneformer_v2_316m", "scgpt", "scgpt_cp"} <= set(known)
    for checkpoint in known.values():
        assert checkpoint.source.startswith("https://"), checkpoint.variant
        for file in checkpoint.files:
            assert len(file.sha256) in (0, 64), file
            assert not Path(file.path).is_absolute()
            assert ".." not in file.path


def test_a_hash_that_nobody_published_is_recorded_and_verified_ever_after(server, known, tmp_path) -> None:
    server.files = {"/a.bin": b"first"}
    known(m={"weights_files": "a.bin"})
    fetch_weights.fetch(checkpoints.known_checkpoint("m"), tmp_path, None)
    path = tmp_path / "modl" / "a.bin"
    assert (tmp_path / "modl" / "SHA256SUMS").read_text() == f"{sha(b'first')}  a.bin\n"
    assert weights.verify(path, "m") == {"file": "a.bin", "sha256": sha(b"first"), "known": False, "recorded": True}
    path.write_bytes(b"later")
    with pytest.raises(UserError, match="first fetched"):
        fetch_weights.fetch(checkpoints.known_checkpoint("m"), tmp_path, None)
    with pytest.raises(UserError, match="first fetched"):
        weights.verify(path, "m")
    assert not weights.verify(path, "m", own=True)["known"]  # weights of one's own may change
