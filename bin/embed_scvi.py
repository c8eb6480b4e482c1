#!/usr/bin/env python3
"""Embed cells by scVI, trained on them: bin/plumbline/models/scvi_model.py.

--set architecture=scanvi or contrastivevi trains with the perturbations of the fitting cells (models/scvi_labelled.py);
latent (contrastivevi): salient, the default, or both.
"""

from plumbline.counts import Counts
from plumbline.embedding_cli import Options, Result, run

SETTINGS = (
    "architecture",
    "latent",
    "gene_likelihood",
    "input",
    "n_hvg",
    "n_latent",
    "n_hidden",
    "n_layers",
    "max_epochs",
    "untrained",
)


def embed(counts: Counts, options: Options) -> Result:
    """The mean of q(z | x) of all cells."""
    from plumbline.models import scvi_labelled, scvi_model
    from plumbline.models.fitting import choice

    architecture = choice(options, "architecture", ("scvi", "scanvi", "contrastivevi"))
    return (scvi_model if architecture == "scvi" else scvi_labelled).embed(counts, options)


if __name__ == "__main__":
    run("scvi", embed, SETTINGS)
