#!/usr/bin/env python3
"""Embed cells with scConcept (Bahrami et al. 2025): bin/plumbline/models/scconcept/embedding.py.

--weights is a folder with config.yaml, model.ckpt and gene_mappings/, or one that holds it.

Settings:
  model_dir             the model's folder below --weights (default: the variant's); quote the brackets in its name
  max_tokens            genes of a cell (default: config.yaml's)
  sampling              top-nonzero (the expressed genes of the largest counts), top (genes not expressed follow them),
                        random-nonzero (a random choice, by upstream's one stream of numbers; on one device); default:
                        config.yaml's, top-nonzero in the released models
  learnable             false: gene vectors from proteins alone (use_learnable_embs=False), for models that have them
  strip_versions        true: ENSG....7 is ENSG... (upstream, and by default: unknown)
  checkpoint            own: weights of your own
  organism, orthologs, measure_precision
  precision             auto, fp32, bf16 (what upstream always runs in), fp16
  untrained             true: tiny random weights, made from the seed for these genes, in place of --weights (a floor)
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.runtime import cells as runtime
from plumbline.models.shared import genes, untrained

SETTINGS = ("model_dir", "max_tokens", "sampling", "learnable", "strip_versions", "checkpoint")


def embed(counts: Counts, options: Options) -> Result:
    """scConcept embeddings of all cells."""
    from plumbline.models.scconcept import embedding

    if untrained.is_untrained(options):
        from plumbline.models.scconcept.untrained import make_checkpoint

        return untrained.embed_untrained(embedding.embed, make_checkpoint, counts, options)
    return embedding.embed(counts, options)


if __name__ == "__main__":
    run("scconcept", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *untrained.SETTINGS))
