#!/usr/bin/env python3
"""Embed cells with Nicheformer (Schaar et al. 2024): bin/plumbline/models/nicheformer/embedding.py.

--weights is a folder with nicheformer.ckpt, and with model.h5ad and dissociated_mean_script.npy beside it or in model_means/.

Settings:
  ranking           rounded (default: counts over rounded means, as the corpora were prepared), raw (over means as they are, as
                    the authors' notebook that embeds: genes without a mean then follow in every cell) or counts (no means)
  technology        whose means: dissociated (default), cosmx, merfish, xenium, iss
  assay, modality   tokens in front of the genes (10x 3'; dissociated), the same for all cells
  padding           mean (default, as upstream: padding is part of the mean) or mask (only the cell's own genes are)
  layer             -1 (default) is the last, 0 the first
  with_context      true: species, assay and modality are part of the mean
  duplicates        sum (default: columns of one gene are added up) or first (as upstream: the others' counts are lost)
  model_file        the checkpoint's file name (default: nicheformer.ckpt, else the only one)
  checkpoint        own: weights of your own
  organism, orthologs, precision, measure_precision
  untrained         true: tiny random weights, made from the seed for these genes, in place of --weights (a floor)
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = (
    "ranking",
    "technology",
    "assay",
    "modality",
    "padding",
    "layer",
    "with_context",
    "duplicates",
    "model_file",
    "checkpoint",
)


def embed(counts: Counts, options: Options) -> Result:
    """Nicheformer embeddings of all cells."""
    from plumbline.models.nicheformer import embedding

    if untrained.is_untrained(options):
        from plumbline.models.nicheformer.untrained import make_checkpoint

        return untrained.embed_untrained(embedding.embed, make_checkpoint, counts, options)
    return embedding.embed(counts, options)


if __name__ == "__main__":
    run("nicheformer", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *untrained.SETTINGS))
