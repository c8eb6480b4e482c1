#!/usr/bin/env python3
"""Embed cells as expression-weighted averages of pretrained gene vectors: bin/plumbline/models/gene_vectors.py.

--weights is a file of gene vectors, or a folder with one: .npz (arrays gene, vector), .csv/.tsv/.parquet (first column gene),
.txt (word2vec). Settings: vectors_file (its name in the folder), input (lognorm or raw), organism, orthologs (mouse genes go by
their human orthologs where the vectors are of human genes; none: by their own names; FILE: by a table of your own).
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.shared import genes


def embed(counts: Counts, options: Options) -> Result:
    """Expression-weighted gene vectors of all cells."""
    from plumbline.models import gene_vectors

    return gene_vectors.embed(counts, options)


if __name__ == "__main__":
    run("gene_vectors", embed, ("vectors_file", "input", *genes.SETTINGS))
