"""What the sheet and the catalogue of public data sets say about a data set: one row, checked and typed."""

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path

from plumbline.common.errors import UserError, did_you_mean
from plumbline.common.files import reading

CATALOGUE = Path(__file__).resolve().parents[3] / "assets" / "catalogue.csv"
CHOICES = {
    "organism": ("human", "mouse", "other"),
    "x_kind": ("counts", "log", "signed"),
    "duplicates": ("sum", "refuse"),
    "split_order": ("file", "id"),
    "perturbation_type": ("crispri", "crispra", "crisprko", "shrna", "chemical", "cytokine", "overexpression", "other"),
    "unexpressed_scale": ("mean_count", "mean_lognorm"),
}
NONE = ("", "none")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a data set; it becomes part of file names

SHA256 = re.compile(r"[0-9a-f]{64}")
MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True)
class Dataset:
    """One row of the sheet, completed from the catalogue. See docs/datasets.md for every column.

    batch_column is '' where the data set has none; control_label is '' or 'none' then, unless its cells are labelled so (the
    exact label wins, cells.py); min_counts: cells with at most so many counts are dropped; unexpressed_threshold: perturbed
    genes below it (on unexpressed_scale) form the null of the `paper` protocol. public_since: month in which the data became
    public at the earliest (YYYY-MM), '' where nobody said. sha256: of the input file, to be verified; '' verifies nothing.
    split_order: whether splits meet the cells in the order of the file (the paper's rule) or of their ids.
    """

    name: str
    perturbation_column: str
    path: str = ""
    control_label: str = ""
    batch_column: str = ""
    cell_table: str = ""
    organism: str = "human"
    gene_id_column: str = ""
    x_kind: str = "counts"
    min_counts: float = 1000.0
    layer: str = "X"
    duplicates: str = "sum"
    perturbation_type: str = "other"
    unexpressed_threshold: float = 0.15
    unexpressed_scale: str = "mean_count"
    title: str = ""
    published_as: str = ""
    guide_column: str = ""
    public_since: str = ""
    sha256: str = ""
    split_order: str = "file"

    @property
    def control_labels(self) -> list[str]:
        """The labels of controls as the sheet gives them; empty if it gives none."""
        return labels_in(self.control_label)

    @property
    def kept_labels(self) -> tuple[str, ...]:
        """Labels that are names even where they look like a missing value: the text of the sheet as a whole, and its parts."""
        return (self.control_label.strip(), *self.control_labels)


def labels_in(text: str) -> list[str]:
    """The labels of a text that separates them by semicolons."""
    return [label.strip() for label in text.split(";") if label.strip()]


def read_catalogue(path: Path | str = CATALOGUE) -> dict[str, dict[str, str]]:
    """{name: row} of a catalogue; every value is a string, '' where nothing is known. Accepts a BOM and Windows line ends."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"the catalogue {path} does not exist. It ships as assets/catalogue.csv of the repository.")
    with reading(path, "It ships as assets/catalogue.csv."), open(path, encoding="utf-8-sig", newline="") as stream:
        return {
            row["name"]: {key: (value or "").strip() for key, value in row.items() if key} for row in csv.DictReader(stream)
        }


def find(name: str, catalogue: dict[str, dict[str, str]], others: tuple[str, ...] = ()) -> dict[str, str]:
    """One row of the catalogue. Raises UserError with a hint for an unknown name; ``others`` are names that may be meant."""
    if name not in catalogue:
        raise UserError(f"{name!r} is not in the catalogue of data sets.{did_you_mean(name, [*catalogue, *others])}")
    return catalogue[name]


def resolve(row: dict, catalogue: dict[str, dict[str, str]]) -> Dataset:
    """A sheet row (missing, None, '' and [] all mean 'not given') completed by the catalogue row of the same name.

    What the sheet gives wins; ``none`` in it overrules the catalogue with nothing. Raises UserError on an unknown column,
    a missing name or perturbation column, a value that is not one of the known, and a number that is none.
    """
    given = {key: _plain(key, value) for key, value in row.items() if value not in (None, "", [])}
    known = [field.name for field in fields(Dataset)]
    if unknown := [key for key in given if key not in known]:
        raise UserError(f"the sheet has an unknown column {unknown[0]!r}.{did_you_mean(unknown[0], known)}")
    name = given.get("name", "")
    if not NAME.fullmatch(name):
        raise UserError(f"data set name {name!r}: use letters, digits, '_', '.' and '-', beginning with a letter or digit.")
    # the catalogue's own sha256 is that of what is downloaded, which may be an archive of the input
    listed = {key: value for key, value in catalogue.get(name, {}).items() if key in known and value and key != "sha256"}
    values = listed | given
    if not values.get("perturbation_column"):
        raise UserError(f"data set {name!r} is not in the catalogue, so the sheet must give its perturbation_column.")
    for column in ("batch_column", "gene_id_column", "published_as", "guide_column"):
        if values.get(column, "").lower() in NONE:
            values[column] = ""
    return Dataset(**{key: _typed(name, key, value) for key, value in values.items()})


def _plain(column: str, value: object) -> str:
    if isinstance(value, dict | list):
        raise UserError(f"the sheet's {column} is {value!r}: expected one text or number.")
    return str(value).strip()


def _typed(name: str, column: str, value: str) -> str | float:
    if column in CHOICES and value not in CHOICES[column]:
        raise UserError(f"data set {name!r}: {column} is {value!r}.{did_you_mean(value, list(CHOICES[column]))}")
    if column == "sha256" and not SHA256.fullmatch(value):
        raise UserError(f"data set {name!r}: sha256 is {value!r}, but must be 64 hexadecimal digits (sha256sum FILE).")
    if column == "public_since" and not MONTH.fullmatch(value):
        raise UserError(f"data set {name!r}: public_since is {value!r}, but must be a month such as 2024-07.")
    if column not in ("min_counts", "unexpressed_threshold"):
        return value
    try:
        number = float(value)
    except ValueError as error:
        raise UserError(f"data set {name!r}: {column} is {value!r}, but must be a number.") from error
    if not 0 <= number < float("inf"):
        raise UserError(f"data set {name!r}: {column} is {value}, but must be 0 or more.")
    return number
