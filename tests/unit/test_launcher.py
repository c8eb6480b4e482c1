"""./plumb: set-up is whole or not at all, the machine's own tools are used when good enough, arguments arrive unharmed."""

import ast
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import environments, home, launch, models, nextflow, outdir, parameters, scripts, verbs
from launcher.home import Part, provide
from plumbline.common.errors import UserError
from plumbline.embedding.variants import read_rows
from plumbline.models import command


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test sets up in a folder of its own."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def program(folder: Path, name: str, script: str) -> Path:
    """A shell script as an executable; put its folder on PATH to stand in for a tool."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def tools_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that makes a fake tool the first of its name on PATH."""
    folder = tmp_path / "fake-bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for variable in ("JAVA_HOME", "NXF_JAVA_HOME", "NXF_HOME", "NXF_OPTS"):
        monkeypatch.delenv(variable, raising=False)
    return lambda name, script: program(folder, name, script)


# --- parts of set-up ---------------------------------------------------------------------------------------------------


def write_a_file(folder: Path) -> None:
    (folder / "file").write_text("whole")


def test_a_part_is_built_once(own_home: Path, capsys):
    part = Part("something", own_home / "part", write_a_file)
    provide([part])
    (part.path / "file").write_text("kept")
    provide([part])
    assert (part.path / "file").read_text() == "kept"
    assert capsys.readouterr().err.count("[1/1] something") == 1


def test_a_failed_build_leaves_nothing_and_can_be_repeated(own_home: Path):
    def fail(folder: Path) -> None:
        write_a_file(folder)
        raise UserError("no network")

    with pytest.raises(UserError, match="no network"):
        provide([Part("something", own_home / "part", fail)])
    assert not [path for path in own_home.iterdir() if not path.name.startswith(".lock")]
    provide([Part("something", own_home / "part", write_a_file)])
    assert (own_home / "part/file").read_text() == "whole"


def test_left_overs_of_a_killed_build_go(own_home: Path):
    left_over = own_home / ".unfinished-part-123"
    left_over.mkdir(parents=True)
    provide([Part("something", own_home / "part", write_a_file)])
    assert not left_over.exists()


SLOW_BUILD = """
import sys, time
sys.path[:0] = [{repo!r}, {bin!r}]
from pathlib import Path
from launcher.home import Part, provide

def build(folder):
    (folder / "half").touch()
    time.sleep({seconds})
    with open({log!r}, "a") as log:
        log.write("built\\n")

provide([Part("something", Path({target!r}), build)])
"""


def slow_build(tmp_path: Path, seconds: float) -> subprocess.Popen:
    names = {
        "repo": str(home.REPO),
        "bin": str(home.REPO / "bin"),
        "log": str(tmp_path / "log"),
        "target": str(tmp_path / "h/part"),
    }
    command = [sys.executable, "-c", SLOW_BUILD.format(seconds=seconds, **names)]
    # a suite started in the background of a shell ignores SIGINT, and its children would too
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=listen)


def wait_for(path: Path) -> None:
    for _ in range(200):
        if any(path.parent.glob(path.name)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_interrupt_leaves_nothing_half_built(tmp_path: Path):
    build = slow_build(tmp_path, 60)
    wait_for(tmp_path / "h/.unfinished-*")
    time.sleep(0.2)
    build.send_signal(signal.SIGINT)
    assert build.wait(10) != 0
    assert not [path.name for path in (tmp_path / "h").iterdir() if not path.name.startswith(".lock")]


def test_two_at_once_build_once(tmp_path: Path):
    builds = [slow_build(tmp_path, 1), slow_build(tmp_path, 1)]
    assert [build.wait(20) for build in builds] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_digest_depends_on_every_input(tmp_path: Path):
    file = tmp_path / "requirements.txt"
    file.write_text("numpy==2.0")
    before = home.digest(file, "3.11")
    assert before == home.digest(file, "3.11") != home.digest(file, "3.12")
    file.write_text("numpy==2.1")
    assert home.digest(file, "3.11") != before
    assert home.digest("ab", "c") != home.digest("a", "bc")


def test_a_command_that_fails_is_told_with_its_last_lines():
    with pytest.raises(UserError, match=r"(?s)sh failed \(exit code 3\).*the reason.*try again"):
        home.command(["sh", "-c", "echo the reason >&2; exit 3"], "try again")


@pytest.mark.parametrize(("variable", "full"), [("PLUMBLINE_HOME", "home"), ("TMPDIR", "tmp")])
def test_a_full_disk_is_named_whatever_the_command_says(own_home: Path, tmp_path: Path, monkeypatch, variable: str, full: str):
    """A venv on a full disk fails in ensurepip, and pip is silent: the advice was to check the network."""
    folders = {"home": own_home, "tmp": tmp_path / "tmp"}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr(home.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    room = lambda path: SimpleNamespace(free=5 * 2**20 if folders[full].is_relative_to(path) else 2**40)  # noqa: E731
    monkeypatch.setattr(home.shutil, "disk_usage", room)
    with pytest.raises(UserError, match=rf"is full \(5 MiB free\). Make room, or: export {variable}=/a/larger/disk"):
        home.command(["sh", "-c", "exit 1"], "Check the network")


def test_a_folder_of_set_up_that_cannot_be_written_to_is_refused(own_home: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "file/home"))
    with pytest.raises(
        UserError, match=r"file/home, cannot be written to \(Not a directory\). Name another: export PLUMBLINE_H"
    ):
        provide([Part("a part", home.home() / "part", lambda _: None)])


def test_a_disk_that_refuses_is_one_line(monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/a/folder")

    monkeypatch.setattr(verbs.doctor, "report", refuse)
    assert verbs.main(["doctor"]) == 1
    assert capsys.readouterr().err.startswith("ERROR: Permission denied (/a/folder). Make room or allow access there")


# --- Java and Nextflow -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_292"', 8), ('openjdk version "21" 2023-09-19', 21)],
)
def test_java_version(tools_on_path, text: str, version: int):
    tools_on_path("java", f"echo '{text}' >&2")
    assert nextflow.java_version() == version


def test_java_that_does_not_run_is_none(tools_on_path):
    tools_on_path("java", "exit 1")
    assert nextflow.java_version() is None


def test_java_home_wins_over_path_as_in_nextflow(tools_on_path, tmp_path: Path, monkeypatch):
    tools_on_path("java", """echo 'openjdk version "17.0.1"' >&2""")
    (tmp_path / "jdk").mkdir()
    program(tmp_path / "jdk/bin", "java", """echo 'openjdk version "11.0.1"' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert nextflow.java_version() == 11


@pytest.mark.parametrize(
    ("version", "enough"), [("25.04.3", True), ("25.04.10", True), ("26.01.0", True), ("25.04.2", False), ("24.10.9", False)]
)
def test_the_machines_nextflow_is_used_when_recent(tools_on_path, monkeypatch, version: str, enough: bool):
    tools_on_path("java", """echo 'openjdk version "21.0.1"' >&2""")
    own = tools_on_path("nextflow", f"echo 'nextflow version {version}.5949'")
    fetched = []
    monkeypatch.setattr(nextflow, "provide", lambda parts: fetched.extend(part.title for part in parts))
    found = nextflow.nextflow()
    assert (found.command == str(own)) == enough
    assert bool(fetched) != enough


def test_without_a_good_java_one_is_fetched(tools_on_path, monkeypatch):
    tools_on_path("java", """echo 'openjdk version "11.0.1"' >&2""")
    tools_on_path("nextflow", "echo 'nextflow version 25.04.3.5949'")
    fetched = []
    monkeypatch.setattr(nextflow, "provide", lambda parts: fetched.extend(part.title for part in parts))
    monkeypatch.setattr(nextflow, "java_home", lambda: Path("/jre"))
    found = nextflow.nextflow()
    assert "Java" in fetched
    assert found.environment["NXF_JAVA_HOME"] == "/jre"


def test_a_machine_without_ps_gets_one(tmp_path: Path, monkeypatch):
    """Nextflow stops without ps. Ours lists every process with its parent, whatever its name, and comes after a real one."""
    odd = shutil.copy(shutil.which("sleep"), tmp_path / "x) y (z")
    monkeypatch.setenv("PATH", str(tmp_path))
    first, last = nextflow.path_with_ps()["PATH"].split(os.pathsep)
    assert first == str(tmp_path)
    sleeping = subprocess.Popen([odd, "60"])
    try:
        ask = [Path(last) / "ps", "-e", "-o", "pid=", "-o", "ppid="]
        listed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()
    finally:
        sleeping.kill()
        sleeping.wait()
    assert {(sleeping.pid, os.getpid()), (os.getpid(), os.getppid())} <= {tuple(map(int, line.split())) for line in listed}
    assert "procps" in subprocess.run([ask[0], "aux"], capture_output=True, text=True).stderr
    program(tmp_path, "ps", "true")
    assert nextflow.path_with_ps() == {}


def test_class_path_manifest(tmp_path: Path):
    """The manifest format allows 72 bytes a line; a continuation begins with a space."""
    names = [f"some-library-with-a-name-{number}.jar" for number in range(57)]
    nextflow._write_class_path(tmp_path / "one.jar", names)
    manifest = zipfile.ZipFile(tmp_path / "one.jar").read("META-INF/MANIFEST.MF").decode()
    assert max(len(line) for line in manifest.split("\r\n")) <= 72
    unfolded = manifest.replace("\r\n ", "")
    assert f"Class-Path: {' '.join(sorted(names))}\r\n" in unfolded
    assert "Main-Class: nextflow.cli.Launcher\r\n" in unfolded


def test_a_jar_that_is_not_the_locked_one_is_refused(tools_on_path, monkeypatch, own_home: Path):
    """A Maven that delivers something else under the right names."""
    names = [line.rsplit("/", 1)[1] for line in (nextflow.LAUNCHER / "nextflow.lock").read_text().splitlines()]
    writes = "\n".join(f'echo changed > "$folder/{name}"' for name in names)
    find = 'for word; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done; mkdir -p "$folder"'
    tools_on_path("mvn", f"{find}\n{writes}")
    monkeypatch.setattr(nextflow, "reachable", lambda site: False)
    with pytest.raises(UserError, match="checksum"):
        provide([nextflow.distribution({})])
    assert not nextflow.distribution({}).path.exists()


def test_plumb_tells_an_old_python_what_it_needs():
    """The script itself must parse on the Pythons it refuses."""
    ast.parse((home.REPO / "plumb").read_text(), feature_version=(3, 7))


# --- environments and arguments ----------------------------------------------------------------------------------------


def test_unknown_names_are_told_with_a_suggestion():
    with pytest.raises(UserError, match="Did you mean 'scvi'"):
        environments.requirements("scvy")
    with pytest.raises(UserError, match="Did you mean"):
        models.variant("pca_al")


def test_make_gives_plain_names(monkeypatch, own_home: Path):
    """params.env_dir: a folder with base/, scvi/, ...; a second call with another environment adds to the same folder."""
    monkeypatch.setattr(environments, "environment", lambda name: Part(name, own_home / f"envs/{name}-123", write_a_file))
    monkeypatch.setattr(environments, "tools", lambda: Part("tools", own_home / "tools", write_a_file))
    folder = environments.make(["base"])
    assert environments.make(["base", "scvi"]) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["base", "scvi"]
    assert (folder / "scvi/file").read_text() == "whole"


def test_option_values():
    words = ["-profile", "test", "--models=pca,scvi", "--flag", "-profile", "uv"]
    assert parameters.value(words, "-profile") == "uv"
    assert parameters.value(words, "--models") == "pca,scvi"
    assert parameters.value(words, "--absent") is None
    assert parameters.without(words, "-profile") == ["--models=pca,scvi", "--flag"]


class FakeParameters(parameters.Parameters):
    """Parameters without a Nextflow: what it would say is given."""

    def __init__(self, words: list[str], configured: dict[str, str | None]) -> None:
        super().__init__(nextflow.Nextflow("nextflow", {}, Path("jar")), words, [])
        self.configured = configured


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--models", "pca,random"], ["base", "multiqc"]),
        (["--models", "scvi_nb, pca"], ["base", "scvi", "multiqc"]),
        (["--models", "scgpt"], ["base", "scgpt", "multiqc"]),
        (["--models", "no_such_model"], ["base", "multiqc"]),
        (["--models", "pca", "--experiments", "transfer"], ["base", "multiqc"]),
        (["--models", "pca", "--experiments", "integrity,count_distribution"], ["base", "scvi", "multiqc"]),
        (["--models", "pca", "--experiments", "all"], ["base", "scvi", "multiqc"]),
        (["--models", "scvi", "--estimate_only"], ["base"]),
        ([], ["base", "scvi", "multiqc"]),
    ],
)
def test_environments_follow_the_models(words: list[str], needed: list[str]):
    configured = {"params.models": "pca,scvi", "params.experiments": None}
    assert sorted(models.environments(FakeParameters(words, configured))) == sorted(needed)


def test_a_parameter_is_that_of_the_command_line_then_the_file_then_the_configuration(tmp_path: Path):
    (tmp_path / "params.json").write_text('{"outdir": "x", "n_boot": 50, "weights": null, "models": "pca,uce_4l"}')
    (tmp_path / "params.yml").write_text("models: pca,scvi # two\nseeds: '42'\nweights: null\n")
    configured = {"params.models": "pca", "params.weights": "w", "params.baseline": "pca"}
    in_json = FakeParameters(["-params-file", str(tmp_path / "params.json"), "--outdir", "y"], configured)
    wanted = {"outdir": "y", "n_boot": "50", "weights": None, "models": "pca,uce_4l", "baseline": "pca", "absent": None}
    assert {name: in_json.get(name) for name in wanted} == wanted
    in_yaml = FakeParameters(["-params-file", str(tmp_path / "params.yml")], configured)
    wanted = {"models": "pca,scvi", "seeds": "42", "weights": None, "baseline": "pca"}
    assert {name: in_yaml.get(name) for name in wanted} == wanted
    (tmp_path / "params.json").write_text("[1")
    with pytest.raises(UserError, match="not a JSON file of parameters"):
        FakeParameters(["-params-file", str(tmp_path / "params.json")], configured).get("models")


def test_an_engine_is_a_profile_or_enabled_by_one():
    assert set(parameters.ENGINES) == {"docker", "podman", "singularity", "apptainer", "charliecloud"}
    ours = FakeParameters([], {"docker.enabled": None})
    assert not ours.engine()
    assert FakeParameters([], {"singularity.enabled": "true"}).engine()
    ours.profiles = ["test", "docker"]
    assert ours.engine()


def test_every_parameter_of_the_schema_is_read_by_something():
    groups = json.loads((home.REPO / "nextflow_schema.json").read_text())["$defs"].values()
    folders = [home.REPO / name for name in ("conf", "modules/local", "subworkflows")]
    files = [path for folder in folders for kind in ("nf", "config") for path in folder.rglob(f"*.{kind}")]
    text = "\n".join(path.read_text() for path in [home.REPO / "main.nf", home.REPO / "nextflow.config", *files])
    names = [name for group in groups for name in group["properties"]]
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"\b(params|opts)\??\.{name}\b", text)] == []


def test_known_settings_are_those_of_the_scripts(monkeypatch):
    """assets/schema_settings.json, by which Nextflow refuses a setting, against what each script takes."""
    schema = json.loads((home.REPO / "assets/schema_settings.json").read_text())
    taken = {}
    note = lambda model, _embed, settings=(), **_: taken.update({model: settings})  # noqa: E731
    monkeypatch.setattr(command, "run", note)
    for model in schema["models"]:
        runpy.run_path(str(home.REPO / f"bin/embed_{model}.py"), run_name="__main__")
    assert {model: sorted(names) for model, names in schema["models"].items()} == {m: sorted(s) for m, s in taken.items()}
    assert sorted(schema["head"]) == sorted(command.HEAD_SETTINGS)
    assert {row["model"] for row in read_rows()} < set(schema["models"]), "a model whose settings no one checks"
    for row in read_rows():
        names = {pair.partition("=")[0] for pair in row["settings"].split(";") if pair}
        assert row["model"] not in taken or names <= {*taken[row["model"]], *command.HEAD_SETTINGS}


# --- verbs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def launched(tools_on_path, tmp_path: Path, monkeypatch):
    """Runs a plumb command line against a Nextflow that only notes its arguments; -> (exit code, words, environments)."""
    note, made = tmp_path / "words", []
    tools_on_path("java", """echo 'openjdk version "21.0.1"' >&2""")
    version = "[ $1 = -v ] && echo 'nextflow version 25.04.3.1' && exit 0"
    preview = f'case " $* " in *\' -preview \'*) echo "$*" > {tmp_path}/preview; exit 0;; esac'
    said = "params.models = 'pca,scvi'\nparams.experiments = null\nparams.outdir = 'results'"
    config = f'case " $* " in *\' config \'*) echo "$*" > {tmp_path}/config; echo "{said}"; exit 0;; esac'
    tools_on_path(
        "nextflow", f"{version}\n{preview}\n{config}\nprintf '%s\\n' \"$@\" > {note}\necho $NXF_CACHE_DIR >> {note}\nexit 7"
    )
    monkeypatch.setattr(environments, "make", lambda names: made.extend(names) or tmp_path / "envs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NXF_ANSI_LOG", "false")
    handlers = {number: signal.getsignal(number) for number in launch.PASSED_ON}

    def run_plumb(*words: str) -> tuple[int, list[str], list[str]]:
        code = verbs.main(list(words))
        return code, note.read_text().splitlines() if note.exists() else [], made

    yield run_plumb
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("verb", scripts.SHARING)
def test_what_shares_results_is_a_script_with_a_help_of_its_own(verb: str, monkeypatch):
    script = scripts.SHARING[verb][0]
    started = []
    monkeypatch.setattr(scripts, "_script", lambda *words: started.append(words) or 2)
    assert verbs.main([verb, "a folder", "--data", "x", "--threads=1"]) == 2
    assert started == [("base", script, ["a folder", "--data", "x", "--threads=1"])]
    monkeypatch.setattr(scripts, "wait", lambda command, _: started.append(command) or 0)
    assert verbs.main([verb, "--help"]) == 0
    assert started[1] == [sys.executable, str(home.REPO / "bin" / script), "--help"]
    assert os.access(home.REPO / "bin" / script, os.X_OK)


def test_run_adds_the_uv_profile_and_passes_the_rest_and_the_exit_code(launched, tmp_path: Path):
    code, words, made = launched("run", "--input", "a sheet.csv", "--models", "scvi", "-profile", "test", "-resume")
    assert code == 7
    assert words[:4] == ["run", str(home.REPO), "-profile", "test,uv"]
    assert (tmp_path / "config").read_text().split()[2:] == ["config", "-flat", "-profile", "test", str(home.REPO)]
    assert words[4:-1] == ["--input", "a sheet.csv", "--models", "scvi", "-resume", "--env_dir", str(tmp_path / "envs")]
    assert sorted(made) == ["base", "multiqc", "scvi"]


def test_an_estimate_is_no_session_that_resume_continues(launched, tmp_path: Path, monkeypatch):
    """After an estimate, -resume of the run in the same folder began anew."""
    monkeypatch.delenv("NXF_CACHE_DIR", raising=False)
    assert launched("run", "--models", "pca", "-resume")[1][-1] == "", "Nextflow's own place"
    aside = launched("estimate", "--models", "pca")[1][-1]
    assert aside
    assert not Path(aside).is_relative_to(tmp_path)
    assert not Path(aside).exists()


def test_without_a_terminal_nextflow_writes_plain_lines(launched, monkeypatch):
    monkeypatch.delenv("NXF_ANSI_LOG")
    assert launched("run", "--models", "pca")[1][:4] == ["run", str(home.REPO), "-ansi-log", "false"]
    assert launched("run", "--models", "pca", "-ansi-log", "true")[1].count("-ansi-log") == 1


def test_the_report_is_named_after_a_run_whose_every_task_was_cached(launched, tools_on_path, tmp_path: Path, capfd):
    """And not after a run that failed and left an older report."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/multiqc_report.html").touch()
    os.utime(tmp_path / "results/multiqc_report.html", (0, 0))
    launched("run", "--models", "pca")
    assert "report:" not in capfd.readouterr().err
    tools_on_path("nextflow", (tmp_path / "fake-bin/nextflow").read_text().replace("exit 7", "exit 0"))
    launched("run", "--models", "pca")
    assert f"report:  {tmp_path}/results/multiqc_report.html" in capfd.readouterr().err


def test_a_lock_is_explained(launched, tools_on_path, tmp_path: Path, capfd):
    text = (tmp_path / "fake-bin/nextflow").read_text()
    tools_on_path("nextflow", text.replace("exit 7", "echo 'Unable to acquire lock on session' > .nextflow.log; exit 1"))
    launched("run", "--models", "pca", "-resume")
    assert "still going on" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("echo 'java.io.IOException: No space left on device' > .nextflow.log; exit 1", "The disk is full"),
        ("kill -9 $$", "Nextflow was killed (kill -9, or lack of memory). What was finished is kept"),
    ],
)
def test_the_end_of_a_run_is_explained(launched, tools_on_path, tmp_path: Path, capfd, ending: str, said: str):
    text = (tmp_path / "fake-bin/nextflow").read_text()
    tools_on_path("nextflow", text.replace("exit 7", ending))
    assert launched("run", "--models", "pca")[0] in (1, 137)
    assert said in capfd.readouterr().err


def test_two_runs_into_one_folder_are_refused(launched, tmp_path: Path, capfd):
    """They left files of both. One whose plumb was killed still keeps its folder, as long as its Nextflow is there."""
    with outdir.claimed("results") as kept:
        child = subprocess.Popen(["sleep", "60"], pass_fds=kept)
        assert launched("run", "--models", "pca")[0] == 1
    assert f"Another run writes into results (plumb has the process id {os.getpid()})" in capfd.readouterr().err
    assert not (tmp_path / "words").exists()
    assert launched("run", "--models", "pca")[0] == 1
    child.kill()
    child.wait()
    assert launched("run", "--models", "pca", "--outdir", "s3://bucket/results")[0] == 7
    assert launched("run", "--models", "pca")[0] == 7


def test_an_output_folder_that_cannot_be_written_to_is_refused_at_once(launched, tmp_path: Path, capfd):
    (tmp_path / "file").touch()
    assert launched("run", "--models", "pca", "--outdir", "file/results")[0] == 1
    assert f"--outdir {tmp_path}/file/results cannot be written to (Not a directory)" in capfd.readouterr().err
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_plumb_ends_its_child(number: signal.Signals, tmp_path: Path):
    """A kill -9 as well, where Linux asks the child to end."""
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent is gone")
    script = f"echo $$ > {tmp_path}/pid; trap 'echo cleaned > {tmp_path}/end; exit 3' TERM INT HUP; while :; do sleep 0.1; done"
    start = f"import sys; sys.path[:0] = {[str(home.REPO), str(home.REPO / 'bin')]!r}; from launcher.launch import wait; "
    code = f"{start}sys.exit(wait(['sh', '-c', {script!r}], dict()))"
    listen = lambda: [signal.signal(number, signal.SIG_DFL) for number in launch.PASSED_ON]  # noqa: E731
    plumb = subprocess.Popen([sys.executable, "-c", code], preexec_fn=listen, start_new_session=True)
    wait_for(tmp_path / "pid")
    time.sleep(0.3)
    plumb.send_signal(number)
    assert plumb.wait(20) == (-9 if number == signal.SIGKILL else 128 + number)
    wait_for(tmp_path / "end")


def test_nextflow_keeps_its_files_below_the_set_up_unless_the_user_has_a_folder_of_it(own_home, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("NXF_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert nextflow.nextflow_home() == {"NXF_HOME": str(own_home / "nxf-home")}
    (tmp_path / "nobody/.nextflow").mkdir(parents=True)
    assert nextflow.nextflow_home() == {}
    monkeypatch.setenv("NXF_HOME", "/elsewhere")
    assert nextflow.nextflow_home() == {}


def test_arguments_are_checked_before_environments_are_made(launched, tools_on_path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.setattr(environments, "lacking", lambda names: names)
    words = ["run", "--input", "no.csv", "--outdir", "mine", "-profile", "test", "-resume", "-w", "scratch"]
    code, _, made = launched(*words)
    assert (code, bool(made)) == (7, True)
    preview = (tmp_path / "preview").read_text().split()
    assert preview[:1] == ["-log"]
    assert {"mine", "scratch", "-resume"}.isdisjoint(preview), "what a preview leaves goes elsewhere"
    assert preview[preview.index("-profile") + 1] == "test,uv"
    made.clear()
    refuses = (
        (tmp_path / "fake-bin/nextflow")
        .read_text()
        .replace(f'echo "$*" > {tmp_path}/preview; exit 0', "echo 'the file no.csv does not exist'; exit 1")
    )
    tools_on_path("nextflow", refuses)
    code, _, made = launched(*words)
    assert (code, made) == (1, [])
    assert capfd.readouterr().err == "the file no.csv does not exist\n"
    monkeypatch.setattr(environments, "lacking", lambda names: [])
    assert launched(*words)[2], "nothing to gain by a preview"


@pytest.mark.parametrize("profile", ["docker", "test,singularity", "slurm,apptainer"])
def test_run_with_an_engine_makes_no_environments(launched, profile: str):
    _, words, made = launched("run", "-profile", profile)
    assert words[2:4] == ["-profile", profile]
    assert "--env_dir" not in words
    assert made == []


def test_help_of_run_is_the_pipelines_and_makes_nothing(launched):
    _, words, made = launched("run", "--help")
    assert words[:-1] == ["run", str(home.REPO), "--help"]
    assert made == []


def test_demo_keeps_its_history_in_the_output_folder(launched, tmp_path: Path):
    _, words, _ = launched("demo", "--outdir", "out")
    out, work = str(tmp_path / "out"), tmp_path / "out" / "work"
    assert words[:2] == ["-log", str(work / "nextflow.log")]
    assert words[words.index("-profile") + 1] == "demo,uv"
    assert words[words.index("--outdir") + 1] == out
    assert words[words.index("-w") + 1] == str(work)
    assert words[-1] == str(work / ".nextflow")
    assert "-resume" not in words
    (work / ".nextflow").mkdir(parents=True)
    (work / ".nextflow" / "history").touch()
    assert "-resume" in launched("demo", "--outdir", "out")[1]


def test_demo_with_experiments_is_their_profile(launched):
    _, words, made = launched("demo", "--experiments")
    assert words[words.index("-profile") + 1] == "demo,experiments,uv"
    assert "scvi" in made


def test_an_estimate_is_a_run_that_starts_nothing(launched):
    _, words, made = launched("estimate", "--input", "sheet.csv", "--models", "scvi")
    assert words[:2] == ["run", str(home.REPO)]
    assert "--estimate_only" in words
    assert made == ["base"]


def test_demo_runs_the_foundation_models_whose_weights_are_there(launched, tmp_path: Path):
    files = models.variant("scgpt")["weights_files"].split(";")
    for name in [name.partition("=")[0] for name in files]:
        path = tmp_path / "weights" / "scgpt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _, words, _ = launched("demo", "--outdir", "out", "--weights", str(tmp_path / "weights"))
    chosen = words[words.index("--models") + 1].split(",")
    assert {"pca", "scvi", "scgpt"} <= set(chosen)
    assert not {"geneformer_v1", "uce_4l", "cellplm"} & set(chosen)
    assert words[words.index("--weights") + 1] == str(tmp_path / "weights")


def test_demo_with_untrained_foundation_models_needs_no_weights(launched):
    _, words, made = launched("demo", "--untrained")
    chosen = words[words.index("--models") + 1].split(",")
    models_there = ["geneformer", "scgpt", "uce", "cellplm", "scfoundation", "scimilarity", "tahoe_x1"]
    models_there += ["transcriptformer", "scconcept", "nicheformer", "state"]
    untrained = [f"{model}_untrained" for model in models_there]
    assert chosen[-len(untrained) :] == untrained
    assert "pca" in chosen
    assert "--weights" not in words
    assert "--untrained" not in words
    assert {"base", "scvi", *models_there, "multiqc"} == set(made)
    _, words, _ = launched("demo", "--untrained", "--models", "pca")
    assert words[words.index("--models") + 1].split(",") == ["pca", *untrained]
    assert "scgpt_untrained" not in " ".join(launched("demo")[1])


def test_embed_gives_the_users_settings_the_last_word(monkeypatch):
    calls = []
    monkeypatch.setattr(scripts, "_script", lambda *words: calls.append(words) or 0)
    assert verbs.main(["embed", "pca_raw", "--input", "x.h5ad", "--output", "y.npz", "--set", "n_components=5"]) == 0
    environment, script, words = calls[0]
    assert (environment, script) == ("base", "embed_pca.py")
    assert words[:2] == ["--variant", "pca_raw"]
    assert words.index("n_components=256") < words.index("n_components=5")


def test_embed_without_the_checkpoint_makes_no_environment(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(scripts, "_script", lambda *words: calls.append(words) or 0)
    files = ["--input", "x.h5ad", "--output", "y.npz"]
    assert verbs.main(["embed", "scgpt", *files]) == 1
    assert "./plumb fetch scgpt --output WEIGHTS, then add --weights WEIGHTS/scgpt" in capsys.readouterr().err
    assert calls == []
    for words in (["scgpt", "--weights", "w"], ["scgpt_untrained"], ["scgpt", "--set", "untrained=true"]):
        assert verbs.main(["embed", *words, *files]) == 0
    assert len(calls) == 3


def test_help_after_a_name_is_that_of_its_script(monkeypatch, capfd):
    """`plumb embed pca --help` named none of the arguments that embed needs."""
    calls = []
    monkeypatch.setattr(scripts, "_script", lambda *words: calls.append(words) or 0)
    for words in (["embed", "scgpt", "--help"], ["check-model", "pca", "-h"]):
        assert verbs.main(words) == 0
    assert calls == [("base", "embed_scgpt.py", ["--help"]), ("base", "check_model.py", ["--help"])]
    for name, argument in (("scgpt", "--accept-licence"), ("kang_demo", "--sha256")):
        assert verbs.main(["fetch", name, "--help"]) == 0
        assert argument in capfd.readouterr().out
    assert verbs.main(["embed", "scgppt", "--help"]) == 1
    assert "Did you mean" in capfd.readouterr().err


def test_fetch_refuses_what_it_cannot_do_before_an_environment_is_made(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(scripts, "_script", lambda *words: calls.append(words[1:]) or 0)
    assert verbs.main(["fetch", "kang_deno", "--output", "x.h5ad"]) == 1
    assert "Did you mean 'kang_demo'" in capsys.readouterr().err
    assert verbs.main(["fetch", "kang_demo"]) == 1
    assert "add --output FILE" in capsys.readouterr().err
    assert calls == []
    assert verbs.main(["fetch", "kang_demo", "--output=x.h5ad"]) == 0
    assert verbs.main(["fetch", "scgpt", "--output", "w"]) == 0
    assert verbs.main(["fetch", "https://localhost/x.h5ad", "--output", "x"]) == 0
    assert [script for script, _ in calls] == ["fetch_dataset.py", "fetch_weights.py", "fetch_dataset.py"]


def test_check_model_takes_a_script_of_ones_own(monkeypatch, tmp_path: Path):
    calls = []
    monkeypatch.setattr(scripts, "_script", lambda *words: calls.append(words) or 0)
    monkeypatch.chdir(tmp_path)
    assert verbs.main(["check-model", "mine", "--script", "embed_mine.py", "--weights", "w"]) == 0
    assert verbs.main(["check-model", "mine", "--script", "embed_mine.py", "--environment", "scgpt"]) == 0
    own = ["mine", "--script", str(tmp_path / "embed_mine.py")]
    assert calls == [("base", "check_model.py", [*own, "--weights", "w"]), ("scgpt", "check_model.py", own)]
    assert verbs.main(["check-model", "mine"]) == 1


def test_weights_are_checked_in_the_environment_of_their_model(monkeypatch, capfd):
    calls = []
    monkeypatch.setattr(scripts, "_script", lambda *words: calls.append(words) or 0)
    assert verbs.main(["weights", "check", "scgpt", "--weights", "w"]) == 0
    assert calls == [("scgpt", "check_weights.py", ["check", "scgpt", "--weights", "w"])]
    assert verbs.main(["weights", "check", "scgptt"]) == 1
    assert verbs.main(["weights", "check", "--help"]) == 0  # teaches, without an environment
    assert "a trained model pairs them" in capfd.readouterr().out
    assert verbs.main(["weights", "mend", "scgpt"]) == 2
    assert len(calls) == 1


def test_bad_names_end_with_one_message(capsys):
    assert verbs.main(["embed", "pcaa"]) == 1
    assert capsys.readouterr().err.startswith("ERROR: There is no model 'pcaa'")
    assert verbs.main(["setup", "nothing_like_it"]) == 1


def test_a_verb_that_passes_nothing_on_refuses_unknown_arguments(capsys):
    with pytest.raises(SystemExit) as end:
        verbs.main(["doctor", "--outdir", "x"])
    assert end.value.code == 2
    assert "unknown argument --outdir" in capsys.readouterr().err


def test_a_killed_child_is_an_error():
    handlers = {number: signal.getsignal(number) for number in launch.PASSED_ON}
    try:
        assert launch.wait(["sh", "-c", "kill -9 $$"], {}) == 137
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_help_of_every_verb(capsys):
    with pytest.raises(SystemExit) as end:
        verbs.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for verb in ("demo", "run", "test", "embed", "fetch", "catalogue", "check-model", "weights", "doctor", "setup"):
        assert f"\n    {verb} " in text or f"\n    {verb}\n" in text
        if verb not in ("run", "weights"):  # their --help is that of the pipeline, of a script
            with pytest.raises(SystemExit) as end:
                verbs.main([verb, "--help"])
            assert end.value.code == 0


def test_a_reader_that_has_gone_ends_a_command_without_a_word(monkeypatch):
    """`plumb show ... | head` ended with a traceback."""
    start = f"import sys; sys.path.insert(0, {str(home.REPO / 'bin')!r}); from plumbline.common.errors import run_script; "
    script = f"{sys.executable} -c \"{start}run_script(lambda: print('a line\\n' * 100_000))\""
    done = subprocess.run(["bash", "-c", f"{script} | head -n 1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a line\n141\n", "")

    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(verbs.doctor, "report", gone)
    monkeypatch.setattr(verbs, "stop_writing", lambda: None)
    assert verbs.main(["doctor"]) == 141
