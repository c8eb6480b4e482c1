"""How structural integrity and the metrics beside it respond to known damage."""

from pathlib import Path

from plumbline.report.run import Run


def sections(run: Run, folder: Path) -> list[dict]:
    """Nothing to show yet."""
    return []
