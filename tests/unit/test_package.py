"""`pip install .`: a wheel with everything the package reads, usable far from the repository."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import plumbline

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what the base environment has beside the package's own dependencies
ELSEWHERE = {
    "efaar-benchmarking": "only its data files are read: docs/python.md has the command",
    "pip": "the pipeline's alone, to fetch data sets that lie in packages",
    "umap-learn": "of the maps in the report, which the pipeline makes",
    "torch": "an extra: large, and only the task reconstruction and heads need it",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds; built from a copy, as building leaves files beside the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "bin", source / "bin", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", target, source]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = target.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def isolated(installed: Path, code: str) -> str:
    """Run code with the wheel's files and nothing of this repository on the path."""
    start = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    done = subprocess.run([sys.executable, "-I", "-c", start + code], cwd=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_module_and_every_data_file_is_in_the_wheel(installed):
    ours = {path.relative_to(ROOT / "bin") for path in (ROOT / "bin/plumbline").rglob("*") if path.is_file()}
    ours = {path for path in ours if "__pycache__" not in path.parts}
    assert len(ours) > 100
    assert ours == {path.relative_to(installed) for path in (installed / "plumbline").rglob("*") if path.is_file()}


def test_no_module_reads_a_file_outside_of_the_package_but_the_catalogue():
    """Two parents lead from a room to bin/; a third would leave the package."""
    leaving = [path.name for path in (ROOT / "bin/plumbline").rglob("*.py") if re.search(r'"assets"', path.read_text())]
    assert leaving == ["catalogue.py"]


def test_the_installed_package_has_its_tables_its_version_and_its_face(installed):
    code = """
import importlib.metadata, plumbline as pl
assert not {"numpy", "pandas"} & set(sys.modules)
from plumbline.embedding.conformance.cells import GENES
from plumbline.embedding.variants import read_variants
from plumbline.genes import names, orthologs
from plumbline.summary.schema import load_schema
assert GENES.is_file() and "pca" in read_variants() and load_schema()["version"]
assert all(getattr(pl, name) for name in pl.__all__)
print(pl.__file__, pl.__version__, importlib.metadata.version("plumbline"))
"""
    file, version, of_wheel = isolated(installed, code).split()
    assert Path(file).is_relative_to(installed)
    assert version == of_wheel == plumbline.__version__


def test_without_the_catalogue_the_message_says_where_it_is(installed):
    code = """
from plumbline.common.errors import UserError
from plumbline.data.catalogue import read_catalogue
try:
    read_catalogue()
except UserError as error:
    print(error)
"""
    assert "assets/catalogue.csv of the repository" in isolated(installed, code)


def test_the_dependencies_are_those_of_the_base_environment():
    lines = (ROOT / "containers/base/requirements.in").read_text().splitlines()
    base = {re.split(r"[^\w-]", line)[0] for line in lines if line and not line.startswith("#")}
    asked = {re.split(r"[^\w-]", line)[0] for line in PROJECT["dependencies"]}
    assert asked == base - set(ELSEWHERE)
    assert set(ELSEWHERE) <= base
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", line) for line in PROJECT["dependencies"]), "lower bounds, no pins"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_the_lower_bounds_allow_what_is_pinned():
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "containers/base/requirements.txt").read_text(), re.MULTILINE))
    for line in PROJECT["dependencies"]:
        name, lowest = line.split(">=")
        assert numbers(lowest) <= numbers(pins[name]), line


def test_types_of_the_face_name_what_the_face_has():
    stub = (ROOT / "bin/plumbline/__init__.pyi").read_text()
    named = set(re.findall(r"import (\w+) as \1$", stub, re.MULTILINE)) | set(re.findall(r"^(\w+): ", stub, re.MULTILINE))
    assert named == set(plumbline.__all__)
    for module, name in re.findall(r"^from (\S+) import (\w+) as", stub, re.MULTILINE):
        assert importlib.util.find_spec(module) is not None
        assert plumbline._FACE[name] in (module, f"{module}.{name}")
