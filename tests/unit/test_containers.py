"""The images and the environments of the uv profile come from one set of pins, complete, consistent and hashed."""

import csv
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from plumbline import __version__

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
NAMES = sorted(path.parent.name for path in CONTAINERS.glob("*/requirements.in"))
LOCKS = sorted([*CONTAINERS.glob("*/requirements.txt"), CONTAINERS / "torch.txt", ROOT / "tests/requirements.txt"])
# pertpy asks for an older statsmodels than scanpy would take: the one known difference of the tests' environment
KNOWN_DIFFERENCES = {"statsmodels", "formulaic"}


def pins(path: Path) -> dict[str, str]:
    """{package: version} of a lock."""
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", path.read_text(), re.MULTILINE))


def entries(path: Path) -> list[str]:
    """The requirements of a lock, continuation lines joined."""
    return [line for line in path.read_text().replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def asked(path: Path) -> set[str]:
    """The packages a requirements.in asks for, included files followed."""
    names = set()
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            names |= asked(path.parent / line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            names.add(re.match(r"[\w.-]+", line)[0].lower())
    return names


def test_every_environment_of_a_model_has_its_container():
    with open(ROOT / "assets/models.csv", newline="") as table:
        wanted = {row["env"] for row in csv.DictReader(table)}
    labels = {name for path in ROOT.glob("modules/**/main.nf") for name in re.findall(r"label 'env_(\w+)'", path.read_text())}
    assert wanted | labels <= set(NAMES)
    for name in NAMES:
        assert {path.name for path in (CONTAINERS / name).iterdir()} == {"requirements.in", "requirements.txt"}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.parent.name + "/" + path.name)
def test_every_pin_has_a_hash_and_nothing_names_a_place(path: Path):
    assert len(entries(path)) > 20
    for entry in entries(path):
        assert re.match(r"[a-z0-9][\w.-]*==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in path.read_text()
    assert "file:" not in path.read_text()


@pytest.mark.parametrize(
    "path", [*CONTAINERS.glob("*/requirements.in"), CONTAINERS / "torch.in", ROOT / "tests/requirements.in"]
)
def test_the_lock_holds_all_that_is_asked_for(path: Path):
    assert asked(path) <= set(pins(path.with_suffix(".txt")))


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("containers/base/requirements.txt", "containers/scvi/requirements.txt"),
        ("containers/scvi/requirements.txt", "tests/requirements.txt"),
        *[("containers/torch.txt", f"containers/{name}/requirements.txt") for name in NAMES if name != "multiqc"],
    ],
)
def test_shared_packages_have_one_version(smaller: str, larger: str):
    """scvi computes as base does, the tests test what runs, and every image shares the layer of torch."""
    small, large = pins(ROOT / smaller), pins(ROOT / larger)
    different = {name for name, version in small.items() if name in large and large[name] != version}
    assert different <= KNOWN_DIFFERENCES
    if smaller != "containers/scvi/requirements.txt":
        assert set(small) <= set(large)


def test_dockerfile_builds_everywhere_and_runs_as_nobody_special():
    """No heredoc, no --link, no syntax line: docker 20.10, podman and buildah build it. Neither weights nor code are in it."""
    text = (CONTAINERS / "Dockerfile").read_text()
    assert "<<" not in text
    assert "--link" not in text
    assert "syntax=" not in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] != "root"
    for label in ("title", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in text
    copied = re.findall(r"^COPY (\S+)", text, re.MULTILINE)
    assert copied == ["torch.txt", "${ENVIRONMENT}/requirements.txt"]
    assert text.count("--no-deps --require-hashes") == len(copied)
    assert "procps" in text  # Nextflow measures tasks with ps


def test_version_is_the_same_everywhere():
    config = (ROOT / "nextflow.config").read_text()
    assert re.search(r"^\s*version = '([^']+)'", config, re.MULTILINE)[1] == __version__


def test_smoke_test_knows_what_to_try():
    spec = importlib.util.spec_from_file_location("smoke", CONTAINERS / "smoke.py")
    smoke = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(smoke)
    assert smoke.scripts("scvi") == ["embed_scvi.py"]
    assert {"scanpy", "scvi-tools"} <= set(smoke.wanted("scvi"))


@pytest.mark.parametrize("script", ["build", "lock"])
def test_shell_scripts_parse(script: str):
    subprocess.run(["bash", "-n", CONTAINERS / script], check=True)


def test_build_without_an_engine_says_so(tmp_path: Path):
    for tool in ("bash", "dirname", "sed", "git"):
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    run = subprocess.run([CONTAINERS / "build"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode == 1
    assert "neither docker nor podman answers" in run.stderr
