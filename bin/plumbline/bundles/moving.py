"""A bundle that Result.save wrote from Python, put in its place among the submitted ones."""

import shutil
from pathlib import Path

from plumbline.bundles.checks import check_bundle
from plumbline.bundles.findings import FAILED
from plumbline.bundles.manifest import MANIFEST, read_bundle
from plumbline.bundles.submission import place_of
from plumbline.common.errors import UserError
from plumbline.common.files import write_json


def submit_saved(folder: Path, root: Path, revision: str, stated: dict[str, str]) -> Path:
    """Copy a sound bundle to ROOT/<model>/<revision>/<data set>, with what the submitter states. Returns its new place."""
    bundle = read_bundle(folder)
    problems = [finding.text for finding in check_bundle(bundle) if finding.status == FAILED]
    if problems:
        raise UserError(f"{folder} is not sound: {problems[0]}. See ./plumb verify {folder}")
    model = bundle.manifest["model"] | ({"revision": revision} if revision else {})
    place = place_of(root, model, bundle.dataset)
    if place.exists():
        raise UserError(f"{place} exists already. Give another --revision, or remove it.")
    place.mkdir(parents=True)
    for name in bundle.manifest["files"]:
        shutil.copyfile(folder / name, place / name)
    submission = bundle.manifest["submission"] | stated
    write_json(place / MANIFEST, bundle.manifest | {"model": model, "submission": submission})
    return place
