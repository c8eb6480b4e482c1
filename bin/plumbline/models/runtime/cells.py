"""How every foundation model is run over the cells of a file: streamed, sorted by length, batched by memory, shared out.

A model is two steps: ``encode`` turns a block of counts into token sequences (numpy), ``forward`` turns a padded batch of
sequences into embeddings (torch). Everything else is here, once: windows of cells, so that memory does not grow with their
number; batches of similar length, so that little is spent on padding; smaller batches when a GPU runs out of memory; several
GPUs. The order of the cells is restored, and a cell's embedding depends on nothing but its own counts.
"""

import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from plumbline.common.errors import OUT_OF_MEMORY
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options
from plumbline.models.runtime.batches import CellModel, OutOfDeviceMemory
from plumbline.models.runtime.devices import pick_devices
from plumbline.models.runtime.rows import Embedded, embed_rows
from plumbline.models.runtime.shards import embed_shards

SETTINGS = ("precision", "measure_precision")  # every model that runs through embed_cells takes these
LAYERS = ("layers", "layer_pooling")  # and these, if it is a stack of layers (layers.py)
TUNING = ("tune", "tune_rank", "tune_layers")  # settings of the models that can be fine-tuned (tuning.py)


def embed_cells(
    counts: Counts, options: Options, build: Callable[[str], CellModel], rows: np.ndarray | None = None
) -> Embedded:
    """Embed the cells of ``counts`` with the model that ``build(device)`` returns (picklable: every GPU's process calls it).

    rows: only these row numbers, in this order (all by default); values has one row for each of them. Ends the
    process with exit code OUT_OF_MEMORY if one cell alone does not fit the GPU.
    """
    from plumbline.models.runtime.layers import layered, read_layers

    devices = pick_devices(options.device)
    wanted = read_layers(options)
    build = partial(layered, build, wanted) if wanted else build
    rows = np.arange(len(counts.cell_id)) if rows is None else rows
    try:
        if len(devices) > 1:
            return embed_shards(counts, options, build, devices, rows)
        return embed_rows(counts, options, build, devices[0], rows)
    except OutOfDeviceMemory as error:
        print(f"ERROR: {error}", file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
