#!/usr/bin/env python3
"""Embed cells by scVI, trained on them: bin/plumbline/models/scvi/scvi_model.py.

--set architecture=scanvi or contrastivevi trains with the perturbations of the fitting cells (models/scvi_labelled.py);
latent (contrastivevi): salient, the default, or both.
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run

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
    from plumbline.models.scvi import labelled as scvi_labelled
    from plumbline.models.scvi import scvi_model
    from plumbline.models.shared.fitting import choice

    architecture = choice(options, "architecture", ("scvi", "scanvi", "contrastivevi"))
    return (scvi_model if architecture == "scvi" else scvi_labelled).embed(counts, options)


if __name__ == "__main__":
    run("scvi", embed, SETTINGS)
