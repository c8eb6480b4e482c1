"""What PREPARE found out about a data set: dataset.json, beside its tables."""

from pathlib import Path

from plumbline.common.files import read_json_object


def read_facts(tables: Path | None) -> dict:
    """The facts (organism, x_kind, split_by, ...); {} outside the pipeline, where nobody stated any."""
    path = tables / "dataset.json" if tables else None
    return read_json_object(path, "Run PREPARE again.") if path and path.exists() else {}
