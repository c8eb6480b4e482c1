#!/usr/bin/env python3
"""Embed cells with TranscriptFormer (Pearce et al. 2025): bin/plumbline/models/transcriptformer/embedding.py.

--weights is the folder of the unpacked model (tf_sapiens, tf_exemplar, tf_metazoa), or one that holds it.

Settings:
  model_dir             the model's folder below --weights (default: the variant's)
  gene_order            vocabulary (default: genes in the order of their tokens) or file (as upstream: columns decide what
                        attention sees, and which genes of a cell with more than 2,046 are cut)
  duplicates            sum (default: columns of one gene are added up) or first (as upstream: the others' counts are lost)
  assay                 unknown (default: the technology does not enter), obs (as upstream: the column obs.assay) or a name
  pooling               context (default, as upstream: the sum of states over the context length, so the norm grows with the
                        number of genes) or mean (over the cell's own positions)
  clip_counts           the largest count (30)
  output                cells (default) or proteins (the authors' baseline ESM2-CE: sums of protein vectors)
  pretrained_embedding  a file of protein vectors, such as all_embeddings/mus_musculus_gene.h5: embeds that species
  special_tokens        with pretrained_embedding: repaired (default) or upstream ([END] begins a cell, and padding is seen)
  checkpoint            own: weights of your own
  organism, orthologs, precision, measure_precision
  untrained             true: tiny random weights, made from the seed for these genes, in place of --weights (a floor)
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = (
    "model_dir",
    "gene_order",
    "duplicates",
    "assay",
    "pooling",
    "clip_counts",
    "output",
    "pretrained_embedding",
    "special_tokens",
    "checkpoint",
)


def embed(counts: Counts, options: Options) -> Result:
    """TranscriptFormer embeddings of all cells."""
    from plumbline.models.transcriptformer import embedding

    if untrained.is_untrained(options):
        from plumbline.models.transcriptformer.untrained import make_checkpoint

        return untrained.embed_untrained(embedding.embed, make_checkpoint, counts, options)
    return embedding.embed(counts, options)


if __name__ == "__main__":
    run("transcriptformer", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *untrained.SETTINGS))
