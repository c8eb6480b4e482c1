#!/usr/bin/env python3
"""Embed cells with CellPLM (Wen et al. 2024): bin/plumbline/models/cellplm/cellplm.py.

--weights is a folder with <prefix>.config.json and <prefix>.best.ckpt. Genes are matched by Ensembl id, which
is looked up where a gene has a symbol alone.

Settings:
  checkpoint    the prefix (default: the variant's, 20231027_85M (vae) for cellplm, 20230926_85M (gmvae) for cellplm_gmvae;
                else the only checkpoint of that kind in the folder)
  set           which cells attend to each other: all (default; neither order nor labels enter), batch (per batch label, sorted:
                what upstream does if there is a column named batch), chunk (chunk_size consecutive cells)
  chunk_size    cells that see each other with set=chunk (default 1024), or within a batch with set=batch (default: all of it)
  batch_column  with set=batch: the obs column (default: PREPARE's batches, which need --tables)
  component     gmvae only: argmax (default) or upstream (drawn as upstream does after torch.manual_seed(seed))
  organism      of the data set, where nothing else says it
  orthologs     a table of human orthologs, or none (bin/plumbline/models/shared/genes.py)
  untrained     true: tiny random weights, made from the seed for these genes, in place of --weights (a floor)

--batch-size is only how many cells are on the device at once: it changes nothing but speed and memory.
"""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run
from plumbline.models.shared import genes, untrained

SETTINGS = ("checkpoint", "set", "chunk_size", "batch_column", "component", *genes.SETTINGS, *untrained.SETTINGS)


def embed(counts: Counts, options: Options) -> Result:
    """CellPLM embeddings of all cells."""
    from plumbline.models.cellplm import cellplm

    if untrained.is_untrained(options):
        from plumbline.models.cellplm.untrained import make_checkpoint

        return untrained.embed_untrained(cellplm.embed, make_checkpoint, counts, options)
    return cellplm.embed(counts, options)


if __name__ == "__main__":
    run("cellplm", embed, SETTINGS)
