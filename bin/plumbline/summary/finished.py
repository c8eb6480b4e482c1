"""Whether a folder is the output of a run that came to its end. Needs no package: ./plumb asks this first."""

from pathlib import Path

from plumbline.common.errors import UserError

ABOUT = "about.json"  # written last
_EARLIER = ("pipeline_info", "embeddings", "data", "scores.parquet")  # what a run leaves before


def check_finished(folder: Path, otherwise: str = "not the output folder of a run") -> None:
    """Raises UserError if a folder is something else, or of a run that did not end."""
    if (folder / ABOUT).is_file():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} {'is a file' if folder.exists() else 'does not exist'}. Give the --outdir of ./plumb run.")
    if any((folder / name).exists() for name in _EARLIER):
        raise UserError(f"{folder} has no {ABOUT}: its run has not ended, or a part of it was copied. Run the same command "
                        "again with -resume, or copy all of it.")  # fmt: skip
    raise UserError(f"{folder} is {otherwise}: it has no {ABOUT}. Give the --outdir of ./plumb run.")
