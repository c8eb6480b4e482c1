#!/usr/bin/env python3
"""Embed cells by PCA: bin/plumbline/models/pca.py."""

from plumbline.counts import Counts
from plumbline.embedding_cli import Options, Result, run


def embed(counts: Counts, options: Options) -> Result:
    """PCA scores of all cells."""
    from plumbline.models import pca

    return pca.embed(counts, options)


if __name__ == "__main__":
    run("pca", embed, ("n_components", "input", "n_hvg", "cache_gb"))
