"""What is there, what is missing, and the command that mends it: one screen, a line each."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from launcher import environments
from launcher.home import home
from launcher.nextflow import JAVA, SITE, VERSION, distribution, java_home, java_version, own_nextflow, reachable, recent, tools
from plumbline.embedding.variants import read_rows

GIB = 2**30
DRIVERS = {11: 450, 12: 525, 13: 580}  # the oldest NVIDIA driver for each CUDA major version
ENGINES = {
    "docker": ["docker", "info"],
    "podman": ["podman", "info"],
    "singularity": ["singularity", "--version"],
    "apptainer": ["apptainer", "--version"],
    "charliecloud": ["ch-run", "--version"],
    "slurm": ["sinfo", "--summarize"],
}


@dataclass(frozen=True)
class Line:
    """A finding. level: ok, warn (only some uses need it) or missing (`./plumb run` cannot work)."""

    level: str
    what: str
    finding: str
    mend: str = ""


def report(weights: Path | None) -> int:
    """Print every finding; exit code 1 if something is missing without which `./plumb run` cannot work."""
    here = [python(), disk(), *machine(), network(), java(), nextflow(), made_environments()]
    lines = [*here, *engines(), gpu(), weight_files(weights)]
    colours = {"ok": "\033[32m", "warn": "\033[33m", "missing": "\033[31m"} if sys.stdout.isatty() else {}
    for line in lines:
        level = f"{colours.get(line.level, '')}{line.level:<8}" + ("\033[0m" if colours else "")
        print(f"{level}{line.what:<18}{line.finding}")
        if line.mend:
            print(f"{'':26}-> {line.mend}")
    return int(any(line.level == "missing" for line in lines))


def python() -> Line:
    """Is there a Python for which every pinned package has a wheel?"""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] in environments.PYTHONS:
        return Line("ok", "Python", found)
    return Line("warn", "Python", f"{found}; the environments need 3.11-3.13", "uv will look for Python 3.11 or fetch it")


def disk() -> Line:
    """Room for the environments where set-up lives."""
    there = next(folder for folder in (home(), *home().parents) if folder.exists())
    free = shutil.disk_usage(there).free / GIB
    found = f"{home()}, {free:.0f} GiB free" + ("" if os.access(there, os.W_OK) else ", not writable")
    if free < 12 or not os.access(there, os.W_OK):
        return Line("missing", "set-up folder", f"{found}; needs 12 GiB", "export PLUMBLINE_HOME=/a/larger/disk")
    return Line("ok", "set-up folder", found)


def machine() -> list[Line]:
    """Cores, memory, and the vector instructions that the wheels of torch and faiss are fast with."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    size = Line("ok", "cores and memory", f"{os.cpu_count()} cores, {memory:.0f} GiB")
    if memory < 7:
        size = Line("warn", size.what, f"{size.finding}; the demo wants 8 GiB", "use a larger machine for more than tests")
    if platform.machine() in ("arm64", "aarch64"):
        return [size, Line("ok", "CPU", platform.machine())]
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else _output(["sysctl", "-a"])
    if re.search(r"\bavx2\b", flags, re.IGNORECASE):
        return [size, Line("ok", "CPU", f"{platform.machine()} with AVX2")]
    return [size, Line("warn", "CPU", f"{platform.machine()} without AVX2: slow, and faiss may not start", "use a newer CPU")]


def network() -> Line:
    """Can packages be had? Asks pip as it is configured here; without it, what is already set up still works."""
    with tempfile.TemporaryDirectory() as folder:
        download = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "nextflow==25.4.3"]
        fetched = subprocess.run([_python_with_pip(Path(folder) / "venv"), *download], capture_output=True, timeout=120)
    packages = "Python packages " + ("can be had" if fetched.returncode == 0 else "cannot be had")
    site = f"{SITE} " + ("answers" if reachable(SITE) else "does not answer (only its plugins for clouds need it)")
    if fetched.returncode == 0:
        return Line("ok", "network", f"{packages}; {site}")
    return Line("warn", "network", f"{packages}; {site}", "docs/hpc_and_cloud.md: without network")


def _python_with_pip(place: Path) -> Path:
    """Set-up's Python, else the machine's; one made at ``place`` where that comes without pip, as Debian's may."""
    if tools().path.exists():
        return tools().path / "bin/python"
    if importlib.util.find_spec("pip"):
        return Path(sys.executable)
    subprocess.run([sys.executable, "-m", "venv", place], capture_output=True, check=False)
    return place / "bin/python" if (place / "bin/python").exists() else Path(sys.executable)


def java() -> Line:
    """A Java that Nextflow runs on."""
    version = java_version()
    if version in JAVA:
        return Line("ok", "Java", f"{version} (the machine's)")
    if java_home():
        return Line("ok", "Java", f"21 ({java_home()})")
    found = f"version {version}; Nextflow needs {JAVA[0]}-{JAVA[-1]}" if version else "none"
    return Line("warn", "Java", found, "./plumb setup (fetches one)")


def nextflow() -> Line:
    """A Nextflow that is new enough."""
    own = own_nextflow()
    if own and recent(own[1]):
        return Line("ok", "Nextflow", f"{own[1]} ({own[0]})")
    too_old = f"{own[0]} is {own[1]}, needs {VERSION}; " if own else ""
    if distribution({}).path.exists():
        return Line("ok", "Nextflow", f"{too_old}{VERSION} ({distribution({}).path})")
    return Line("warn", "Nextflow", f"{too_old}none", "./plumb setup (fetches it)")


def made_environments() -> Line:
    """Which environments of the uv profile are there."""
    lacking = environments.lacking(environments.names())
    made = [name for name in environments.names() if name not in lacking]
    found = f"made: {', '.join(made) or 'none'}" + (f"; not yet: {', '.join(lacking)}" if lacking else "")
    mend = f"./plumb setup {' '.join(lacking)} (or wait: made when needed)" if lacking else ""
    return Line("warn" if lacking else "ok", "environments", found, mend)


def engines() -> list[Line]:
    """Container engines and cluster that answer; they are an alternative to the uv profile."""
    found = {name: command for name, command in ENGINES.items() if shutil.which(command[0])}
    if not found:
        return [Line("ok", "engines", "none; `./plumb run` needs none")]
    lines = []
    for name, command in found.items():
        if _output(command):
            lines.append(Line("ok", name, f"answers; use -profile {name}"))
        else:
            lines.append(Line("warn", name, f"installed, but `{' '.join(command)}` fails", "start it, or use another profile"))
    return lines


def gpu() -> Line:
    """GPU and driver against the CUDA of the pinned torch."""
    seen = _output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]).strip()
    needed = cuda_version()
    if not seen:
        return Line(
            "warn",
            "GPU",
            "none; foundation models are slow on the CPU",
            "use -profile gpu on a machine with one",
        )
    name, driver, memory = (field.strip() for field in seen.splitlines()[0].split(","))
    found = f"{len(seen.splitlines())} x {name}, {memory}, driver {driver}; torch is built for CUDA {needed}"
    oldest = DRIVERS.get(int(needed.split(".")[0]), 0)
    if int(driver.split(".")[0]) < oldest:
        return Line("warn", "GPU", found, f"update the driver to {oldest} or newer; until then the CPU is used")
    return Line("ok", "GPU", f"{found}; use -profile gpu")


def cuda_version() -> str:
    """CUDA version of the pinned torch, from the pins that come with it."""
    pins = environments.requirements("base").read_text()
    found = re.search(r"^(?:cuda-toolkit|nvidia-cuda-runtime\S*)==(\d+\.\d+)", pins, re.MULTILINE)
    return found[1] if found else "0.0"


def weight_files(folder: Path | None) -> Line:
    """Which foundation models have all their files in the weights folder."""
    wanted = {row["id"]: row["weights_files"].split(";") for row in read_rows() if row["weights_files"]}
    if folder is None:
        return Line("ok", "weights", f"not looked for ({len(wanted)} variants need some): ./plumb doctor --weights DIR")
    lacking = [name for name, files in wanted.items() if not all((folder / file.partition("=")[0]).is_file() for file in files)]
    found = f"{len(wanted) - len(lacking)} of {len(wanted)} variants complete in {folder}"
    if not lacking:
        return Line("ok", "weights", found)
    return Line("warn", "weights", f"{found}; not: {', '.join(lacking)}", f"./plumb fetch VARIANT --output {folder}")


def _output(arguments: list[str]) -> str:
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (result.stdout or result.stderr) if result.returncode == 0 else ""
