#!/usr/bin/env python3
"""Embed cells by scVI, trained on them: bin/plumbline/models/scvi_model.py."""

from plumbline.counts import Counts
from plumbline.embedding_cli import Options, Result, run

SETTINGS = (
    "gene_likelihood",
    "input",
    "n_hvg",
    "n_latent",
    "n_hidden",
    "n_layers",
    "max_epochs",
    "train_share",
    "untrained",
)


def embed(counts: Counts, options: Options) -> Result:
    """The mean of q(z | x) of all cells."""
    from plumbline.models import scvi_model

    return scvi_model.embed(counts, options)


if __name__ == "__main__":
    run("scvi", embed, SETTINGS)
