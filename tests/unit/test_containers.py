"""The images and the environments of the uv profile come from one set of pins, complete, consistent and hashed."""

import csv
import importlib.metadata
import importlib.util
import itertools
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from plumbline import __version__

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "containers"
NAMES = sorted(path.parent.name for path in CONTAINERS.glob("*/requirements.in"))
TESTS = ROOT / "tests/requirements.txt"
LOCKS = sorted([*CONTAINERS.glob("*/requirements.txt"), CONTAINERS / "torch.txt", TESTS])
SHARED = [name for name in NAMES if name != "multiqc"]  # its report is text: it shares no numbers with the others


@pytest.fixture(scope="module")
def smoke():
    """The smoke test of the images, which reads requirements.in."""
    spec = importlib.util.spec_from_file_location("smoke", CONTAINERS / "smoke.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lock(name: str) -> Path:
    """The pinned requirements of an environment."""
    return TESTS if name == "tests" else CONTAINERS / name / "requirements.txt"


def pins(path: Path) -> dict[str, str]:
    """{package: version} of a lock."""
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", path.read_text(), re.MULTILINE))


def entries(path: Path) -> list[str]:
    """The requirements of a lock, continuation lines joined."""
    return [line for line in path.read_text().replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


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
def test_the_lock_holds_all_that_is_asked_for(path: Path, smoke):
    assert set(smoke.asked(path)) <= set(pins(path.with_suffix(".txt")))


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(SHARED, 2), *((name, "tests") for name in SHARED)])
def test_shared_packages_have_one_version(one: str, other: str):
    """Every model computes with the same numpy and torch, and the tests test what runs."""
    mine, theirs = pins(lock(one)), pins(lock(other))
    known = set()
    if other == "tests":
        known |= {"statsmodels", "formulaic"}  # pertpy asks for an older one than scanpy would take
    if ("anndata" in mine) != ("anndata" in theirs):
        known |= {"pandas"}  # anndata asks for an older one; models without it read tables with theirs and nothing else
    assert {name for name, version in mine.items() if theirs.get(name, version) != version} <= known


@pytest.mark.parametrize("name", SHARED)
def test_an_image_adds_to_the_shared_layer_of_torch_and_the_tests_have_what_it_asks_for(name: str, smoke):
    assert pins(CONTAINERS / "torch.txt").items() <= pins(lock(name)).items()
    assert smoke.asked(CONTAINERS / name / "requirements.in").keys() <= pins(TESTS).keys()


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
    assert copied == ["torch.txt", "torch.txt", "${ENVIRONMENT}/requirements.txt"]
    assert text.count("--no-deps --require-hashes") == len(copied)
    assert "procps" in text  # Nextflow measures tasks with ps


def test_version_is_the_same_everywhere():
    config = (ROOT / "nextflow.config").read_text()
    assert re.search(r"^\s*version = '([^']+)'", config, re.MULTILINE)[1] == __version__


def test_smoke_test_knows_what_to_try(smoke):
    assert smoke.scripts("scvi") == ["embed_scvi.py"]
    asked = smoke.asked(CONTAINERS / "scvi/requirements.in")
    assert {smoke.module(package) for package, reason in asked.items() if not reason} > {
        "anndata",
        "lightning",
        "scvi",
        "torch",
    }


def test_the_relationships_are_asked_for_by_name_and_bring_no_packages_of_their_own(smoke):
    """Their package would ask for scvi-tools, s3fs and more, for code that plumbline never runs."""
    assert "efaar-benchmarking" in smoke.asked(CONTAINERS / "base/requirements.in")
    assert pins(CONTAINERS / "base/requirements.txt")["efaar-benchmarking"] == "1.0"
    assert not {"scvi-tools", "s3fs", "wget", "upsetplotly"} & set(pins(CONTAINERS / "base/requirements.txt"))


@pytest.mark.parametrize("script", ["build", "lock"])
def test_shell_scripts_parse(script: str):
    subprocess.run(["bash", "-n", CONTAINERS / script], check=True)


def test_build_without_an_engine_says_so(tmp_path: Path):
    for tool in ("bash", "dirname", "sed", "git"):
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    run = subprocess.run([CONTAINERS / "build"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode == 1
    assert "neither docker nor podman answers" in run.stderr


def script(name: str) -> dict:
    """The names that a script of containers/ defines."""
    return runpy.run_path(str(CONTAINERS / name))


@pytest.mark.parametrize("name", SHARED)
def test_an_image_for_cpus_has_every_pin_but_those_of_cuda(name: str):
    text = lock(name).read_text()
    left = script("without_cuda.py")["without_cuda"](text)
    gone = {re.match(r"[\w.-]+", entry)[0] for entry in {*entries(lock(name))} - {line for line in _entries(left)}}
    assert gone == {package for package in pins(lock(name)) if re.match("torch$|triton$|nvidia-|cuda-", package)}
    assert len(gone) > 10
    assert left.count("--hash") == sum(entry.count("--hash") for entry in _entries(left)) > 0


def _entries(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def test_a_bill_of_materials_has_what_is_installed():
    bill = script("sbom.py")["bill"]("plumbline-tests", "1.2")
    assert (bill["bomFormat"], bill["specVersion"], bill["metadata"]["component"]["version"]) == ("CycloneDX", "1.5", "1.2")
    found = {entry["name"].lower(): entry for entry in bill["components"] if entry["purl"].startswith("pkg:pypi/")}
    assert found["numpy"]["version"] == importlib.metadata.version("numpy")
    references = [entry["bom-ref"] for entry in bill["components"]]
    assert len(set(references)) == len(references)


def test_digests_become_a_configuration(tmp_path):
    tool, digest = script("digests.py"), "sha256:" + "0" * 64
    (tmp_path / "a.txt").write_text(f"base r.example.org/x/plumbline-base@{digest}\n")
    (tmp_path / "b.txt").write_text(f"multiqc r.example.org/x/plumbline-multiqc@{digest}\n")
    images = tool["read"]([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert images == {name: f"r.example.org/x/plumbline-{name}@{digest}" for name in ("base", "multiqc")}
    (tmp_path / "c.txt").write_text("base r.example.org/x/plumbline-base:latest\n")
    with pytest.raises(SystemExit, match="not NAME IMAGE@sha256"):
        tool["read"]([tmp_path / "c.txt"])
