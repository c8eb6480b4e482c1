"""What PREPARE found out about a data set: dataset.json, beside its tables."""

import json
from pathlib import Path


def read_facts(tables: Path | None) -> dict:
    """The facts (organism, x_kind, split_by, ...); {} outside the pipeline, where nobody stated any."""
    path = tables / "dataset.json" if tables else None
    return json.loads(path.read_text()) if path and path.exists() else {}
