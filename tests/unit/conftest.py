"""What several test files of bundles share: one small run and its bundles, made once."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with data/tiny, run (its output) and bundles (of pca, random and 'mine'), not to be changed."""
    from made_run import made_bundles

    return made_bundles(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def data(made):
    """Its data set, to score embeddings on."""
    from plumbline.benchmark.verifying import prepared_data

    return prepared_data(made / "data/tiny")


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    """A copy of the bundle of 'mine', to be damaged."""
    from plumbline.bundles.manifest import find_bundles

    (source,) = find_bundles(made / "bundles/mine")
    return Path(shutil.copytree(source, tmp_path / "bundle"))
