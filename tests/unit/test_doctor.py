"""plumb doctor: every finding has a level, and whatever is not ok comes with what mends it."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher import doctor


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty PATH, and a function that puts a fake tool on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("JAVA_HOME", "NXF_JAVA_HOME"):  # set where set-up fetched a Java
        monkeypatch.delenv(variable, raising=False)

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


def test_no_gpu_is_a_warning(on_path):
    assert doctor.gpu().level == "warn"


@pytest.mark.parametrize(("driver", "level"), [("580.65.06", "ok"), ("999.1", "ok"), ("535.104.05", "warn")])
def test_driver_against_cuda_of_the_pins(on_path, monkeypatch, driver: str, level: str):
    """NVIDIA: CUDA 13 needs driver 580 or newer."""
    monkeypatch.setattr(doctor, "cuda_version", lambda: "13.2")
    on_path("nvidia-smi", f"echo 'NVIDIA H200, {driver}, 143771 MiB'\necho 'NVIDIA H200, {driver}, 143771 MiB'")
    line = doctor.gpu()
    assert line.level == level
    assert "2 x NVIDIA H200" in line.finding
    assert ("580" in line.mend) == (level == "warn")


def test_cuda_version_is_that_of_the_pinned_torch():
    major, minor = doctor.cuda_version().split(".")
    assert int(major) in doctor.DRIVERS
    assert int(minor) >= 0


def test_engines_that_answer_and_that_do_not(on_path):
    assert [line.what for line in doctor.engines()] == ["engines"]
    on_path("docker", "exit 1")
    on_path("podman", "echo host")
    assert {line.what: line.level for line in doctor.engines()} == {"docker": "warn", "podman": "ok"}


def test_no_room_is_missing(monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100 * doctor.GIB, 99 * doctor.GIB, doctor.GIB)
    )
    assert doctor.disk().level == "missing"
    assert "PLUMBLINE_HOME" in doctor.disk().mend
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100 * doctor.GIB, 0, 100 * doctor.GIB))
    assert doctor.disk().level == "ok"


def test_java_none_old_and_good(on_path):
    assert doctor.java().level == "warn"
    on_path("java", """echo 'openjdk version "11.0.2"' >&2""")
    assert "version 11" in doctor.java().finding
    on_path("java", """echo 'openjdk version "21.0.2"' >&2""")
    assert doctor.java().level == "ok"


def test_nextflow_too_old(on_path):
    on_path("nextflow", "echo 'nextflow version 24.10.0.5928'")
    line = doctor.nextflow()
    assert line.level == "warn"
    assert "24.10.0" in line.finding


def test_a_python_without_pip_is_not_taken_for_a_machine_without_network(tmp_path: Path, monkeypatch):
    """Debian's Python may come without pip; venv brings one."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    python = doctor._python_with_pip(tmp_path / "venv")
    assert python == tmp_path / "venv/bin/python"
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


def test_environments_not_made_yet():
    line = doctor.made_environments()
    assert line.level == "warn"
    assert line.mend.startswith("./plumb setup base")


def test_weights_that_are_there_and_that_are_not(tmp_path: Path, monkeypatch):
    rows = [{"id": "a", "weights_files": "a/model.pt=remote/model.pt;a/vocab.json"}, {"id": "b", "weights_files": "b.pt"}]
    monkeypatch.setattr(doctor, "read_rows", lambda: [*rows, {"id": "pca", "weights_files": ""}])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/model.pt").touch()
    (tmp_path / "a/vocab.json").touch()
    line = doctor.weight_files(tmp_path)
    assert (line.level, "not: b" in line.finding) == ("warn", True)
    (tmp_path / "b.pt").touch()
    assert doctor.weight_files(tmp_path).level == "ok"
    assert doctor.weight_files(None).level == "ok"


def test_report_prints_every_line_and_fails_on_missing_only(monkeypatch, capsys):
    """Lines that are not ok carry the command that mends them."""
    for name in ("network", "java", "nextflow", "gpu"):
        monkeypatch.setattr(doctor, name, lambda name=name: doctor.Line("warn", name, "no", "mend it"))
    monkeypatch.setattr(doctor, "disk", lambda: doctor.Line("ok", "disk", "fine"))
    assert doctor.report(None) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) < 40
    for number, line in enumerate(printed):
        if line.startswith(("warn", "missing")):
            assert printed[number + 1].strip().startswith("->")
    monkeypatch.setattr(doctor, "disk", lambda: doctor.Line("missing", "disk", "full", "mend it"))
    assert doctor.report(None) == 1
