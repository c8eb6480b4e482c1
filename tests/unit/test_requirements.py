"""What an environment asks for is imported by what runs in it, or says why not; what is imported is asked for."""

import ast
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = sorted(path.parent.name for path in ROOT.glob("containers/*/requirements.in"))
FILES = {name: ROOT / f"containers/{name}/requirements.in" for name in CONTAINERS}
FILES |= {"tests": ROOT / "tests/requirements.in", "tools": ROOT / "launcher/tools.in", "java": ROOT / "launcher/java.in"}
# installed beside the environment of the tests, whose versions they would not take: by benchmarks, and by the script that wrote
# the values of copairs which a test compares with
PEERS = {"CellPLM", "scgpt", "copairs"}


def load_smoke():
    """containers/smoke.py: it reads requirements.in, and knows which scripts run where."""
    spec = importlib.util.spec_from_file_location("smoke", ROOT / "containers/smoke.py")
    smoke = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(smoke)
    return smoke


smoke = load_smoke()


def starts(environment: str) -> list[Path]:
    """The files that an environment's Python is started with."""
    if environment == "tests":
        return [path for folder in ("tests", "benchmarks", "bin") for path in ROOT.glob(f"{folder}/**/*.py")] + [
            ROOT / ".ci/ro_crate"
        ]
    if environment == "tools":
        return [ROOT / "launcher/fetch_jars.py"]
    if environment == "machine":  # whatever Python the user has
        return [ROOT / "plumb", *(path for path in ROOT.glob("launcher/*.py") if path.name != "fetch_jars.py")]
    scripts = [ROOT / "bin" / name for name in smoke.scripts(environment)]
    if environment == "base":  # and all that no environment of a model claims
        elsewhere = {name for other in CONTAINERS if other != "base" for name in smoke.scripts(other)}
        scripts = [path for path in ROOT.glob("bin/*.py") if path.name not in elsewhere]
    return [*scripts, ROOT / "bin/check_model.py", ROOT / "bin/check_weights.py"] if scripts else []


@cache
def imports(path: Path) -> set[str]:
    """The modules that a file imports, at its top or within a function, by their whole names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(level=0):
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=name)]):
                found.add(name)
    return found


def own_files(name: str, root: Path) -> list[Path]:
    """The files of the repository that importing a module reads: packages on the way to it, and those it finds by walking."""
    found = []
    for folder in (root, root / "bin"):
        place = folder
        for part in name.split("."):
            place = place / part
            found += [path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()]
    walkers = [path for path in found if path.name == "__init__.py" and "import_module(" in path.read_text()]
    return found + [path for walker in walkers for path in walker.parent.glob("*.py")]


def reached(files: Iterable[Path], root: Path = ROOT) -> set[Path]:
    """Files and, at any depth, those of the repository that they import."""
    seen, waiting = set(), list(files)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += [file for name in imports(path) for file in own_files(name, root)]
    return seen


def third_party(files: Iterable[Path], root: Path = ROOT) -> set[str]:
    """The packages that files, and what they import, need beyond Python and the repository."""
    files = reached(files, root)
    beside = {path.stem for path in files if root / "bin/plumbline" not in path.parents}
    own = beside | {path.name for folder in (root, root / "tests", root / "bin") for path in folder.glob("[a-z]*/")}
    return {name.partition(".")[0] for path in files for name in imports(path)} - own - set(sys.stdlib_module_names)


def unused(asked: dict[str, str], imported: set[str]) -> list[str]:
    """What is wrong with requirements: imported by nothing without a reason, or with a reason that no longer holds."""
    wrong = {package for package, reason in asked.items() if bool(reason) == (smoke.module(package) in imported)}
    return sorted(wrong)


def unpinned(asked: dict[str, str], imported: set[str]) -> list[str]:
    """What is imported and not asked for."""
    return sorted(imported - {smoke.module(package) for package in asked})


@pytest.mark.parametrize("environment", FILES)
def test_nothing_is_asked_for_that_nothing_imports(environment: str):
    """Those of an included file are tested where they stand."""
    assert unused(smoke.asked(FILES[environment], included=False), third_party(starts(environment))) == []


@pytest.mark.parametrize("environment", FILES)
def test_all_that_is_imported_is_asked_for(environment: str):
    wanted = third_party(starts(environment)) - (PEERS if environment == "tests" else set())
    assert unpinned(smoke.asked(FILES[environment]), wanted) == []


def test_the_launcher_starts_with_python_alone():
    assert third_party(starts("machine")) == set()


def test_torch_which_every_image_shares_is_asked_for_by_its_environments():
    shared = smoke.asked(ROOT / "containers/torch.in")
    assert all(shared.keys() <= smoke.asked(FILES[name]).keys() for name in CONTAINERS if name != "multiqc")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A script whose imports lie where they are easily overlooked."""
    files = {
        "bin/embed.py": "def main():\n    from plumbline.tasks import first\n",
        "bin/plumbline/__init__.py": "import csv\n",
        "bin/plumbline/tasks/__init__.py": "import importlib\nfind = lambda name: importlib.import_module(name)\n",
        "bin/plumbline/tasks/first.py": "import json\n\nimport numpy.linalg\n",
        "bin/plumbline/tasks/second.py": "def run():\n    if True:\n        import faiss\n",
        "bin/plumbline/elsewhere.py": "import scanpy\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_found_within_functions_and_in_modules_found_by_walking(repository: Path):
    assert third_party([repository / "bin/embed.py"], repository) == {"numpy", "faiss"}


def test_a_pin_too_many_a_pin_too_few_and_a_reason_that_no_longer_holds(tmp_path: Path):
    file = tmp_path / "requirements.in"
    file.write_text(
        "# comment\nnumpy\nfaiss-cpu==1\nscanpy  # for later\npip  # not imported: run\ntorch  # not imported: no more\n"
    )
    asked = smoke.asked(file)
    assert asked == {"numpy": "", "faiss-cpu": "", "scanpy": "", "pip": "run", "torch": "no more"}
    assert unused(asked, {"numpy", "faiss", "torch", "h5py"}) == ["scanpy", "torch"]
    assert unpinned(asked, {"numpy", "faiss", "torch", "h5py"}) == ["h5py"]
