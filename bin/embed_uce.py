#!/usr/bin/env python3
"""Embed cells with UCE (Rosen et al. 2023): bin/plumbline/models/uce/network.py.

--weights is a folder with a model file, species_chrom.csv, species_offsets.pkl (or .json) and the protein_embeddings/*.pt.

Settings:
  model_file          the model's file name (default: the variant's, else the only *.torch)
  species             human, mouse, frog, zebrafish, mouse_lemur, pig, macaca_fascicularis, macaca_mulatta
                      (default: the data set's organism, else what its Ensembl ids say, else human)
  sampling            cell (default: a random stream per cell, seeded by its id) or upstream (one stream, cell after cell)
  padding             mask (default: padding is hidden) or upstream (padding gets +1 on its logits; batches of 25 in file order)
  filter              true drops genes in < 10 cells, then cells with < 25 genes, as upstream does; false (default) keeps all
  chrom_token_offset  first chromosome token (default: the chromosomes of species_chrom.csv are the table's last rows)
  checkpoint          own: weights of your own whose file has a published size
  precision, measure_precision   number format: auto, fp32, bf16, fp16; measure the difference to fp32 on the first cells
  untrained     true: tiny random weights, made from the seed for these genes, in place of --weights (a floor)
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import untrained

SETTINGS = (
    "model_file",
    "species",
    "sampling",
    "padding",
    "filter",
    "chrom_token_offset",
    "checkpoint",
    *runtime.SETTINGS,
    *runtime.LAYERS,
    *untrained.SETTINGS,
)


def embed(counts: Counts, options: Options) -> Result:
    """UCE embeddings of all cells."""
    from plumbline.models.uce import network as uce

    if untrained.is_untrained(options):
        from plumbline.models.uce.untrained import make_checkpoint

        return untrained.embed_untrained(uce.embed, make_checkpoint, counts, options)
    return uce.embed(counts, options)


if __name__ == "__main__":
    run("uce", embed, SETTINGS)
