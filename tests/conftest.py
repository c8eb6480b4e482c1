"""Fixtures every test may use."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests, those that share fixtures stay together: a file, and all that start Nextflow."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        item.add_marker(pytest.mark.xdist_group("nextflow" if folder in ("pipeline", "engines") else item.path.stem))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material that lies beside a developer's checkout; a test that needs it is skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the reference fixtures in ../shared, which only developers have")
    return folder
