#!/usr/bin/env python3
"""Embed cells with STATE's cell embedding SE-600M (Adduri et al. 2025): bin/plumbline/models/state/embedding.py.

--weights is a folder with a checkpoint (se600m_epoch16.ckpt), config.yaml and protein_embeddings.pt. The weights are for
non-commercial use (Arc Research Institute State Model Non-Commercial License).

Settings:
  model_file        the checkpoint's file name (default: the variant's, else the only one)
  input             counts or log (default: what the data set holds), or upstream (guessed cell by cell: shallow cells of a file
                    of counts are then taken for logarithms)
  layer             embed layers[NAME] in place of X
  sampling          cell (default: ties and fillers by random numbers of the cell's own) or upstream (one stream after
                    torch.manual_seed, cell after cell, on one device)
  cls_value         zero (default) or upstream (<cls> gets the value of the fourth matched column of the file)
  duplicates        sum (default: columns of one symbol are added up) or keep (as upstream: the gene comes twice)
  dataset_code      true: append the 10 numbers that say from which data set a cell might be, as upstream does
  pad_length        positions of a cell with <cls> (default: config.yaml's, 2048)
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
    "model_file",
    "input",
    "layer",
    "sampling",
    "cls_value",
    "duplicates",
    "dataset_code",
    "pad_length",
    "checkpoint",
)


def embed(counts: Counts, options: Options) -> Result:
    """STATE embeddings of all cells."""
    from plumbline.models.state import embedding

    if untrained.is_untrained(options):
        from plumbline.models.state.untrained import make_checkpoint

        return untrained.embed_untrained(embedding.embed, make_checkpoint, counts, options)
    return embedding.embed(counts, options)


if __name__ == "__main__":
    run("state", embed, (*SETTINGS, *genes.SETTINGS, *runtime.SETTINGS, *runtime.LAYERS, *untrained.SETTINGS))
