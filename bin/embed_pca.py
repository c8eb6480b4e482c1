#!/usr/bin/env python3
"""Embed cells by PCA: bin/plumbline/models/pca/pca.py."""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run


def embed(counts: Counts, options: Options) -> Result:
    """PCA scores of all cells."""
    from plumbline.models.pca import pca

    return pca.embed(counts, options)


if __name__ == "__main__":
    run("pca", embed, ("n_components", "input", "n_hvg", "cache_gb"))
