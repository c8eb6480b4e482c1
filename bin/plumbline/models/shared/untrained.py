"""A foundation model without its pre-training: what the architecture alone does, a floor.

--set untrained=true puts a tiny checkpoint of random weights in place of --weights: in the authors' file format, its vocabulary
the data set's genes, its numbers decided by the seed. The ordinary code then reads it. <model>/untrained.py write them.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.common.errors import UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result

if TYPE_CHECKING:
    from plumbline.models.runtime.encoder import Encoder

SETTINGS = ("untrained",)  # every foundation model takes it
ABOUT_FILES = ("checkpoint", "model_dir", "model_file", "chrom_token_offset")  # settings that say which file, or what is in it


def is_untrained(options: Options) -> bool:
    """Whether --set untrained=true is given."""
    return bool(options.get("untrained", False))


def embed_untrained(
    embed: Callable[[Counts, Options], Result],
    make_checkpoint: Callable[[Path, Counts, Options], None],
    counts: Counts,
    options: Options,
) -> Result:
    """What ``embed`` returns with the checkpoint that ``make_checkpoint(folder, counts, options)`` writes.

    The provenance says trained: false (unless it was then fine-tuned), pretrained: false, and a variant named untrained.
    Raises UserError if weights, or settings about their files, are given as well.
    """
    told = [name for name in ABOUT_FILES if name in options.settings]
    if options.weights or told:
        given = f"--set {told[0]}={options.settings[told[0]]}" if told else f"--weights {options.weights}"
        conflict = f"{given} cannot be combined with it. Remove one of the two."
        raise UserError(f"--set untrained=true makes its own random weights, and {conflict}")
    variant = options.variant if "untrained" in options.variant else f"{options.variant}_untrained"
    settings = {name: value for name, value in options.settings.items() if name != "untrained"}
    with tempfile.TemporaryDirectory(prefix="plumbline_") as place:
        folder = Path(place) / "untrained"
        folder.mkdir()
        make_checkpoint(folder, counts, options)
        # checkpoint=own: no published checksum applies
        result = embed(counts, replace(options, variant=variant, weights=folder, settings=settings | {"checkpoint": "own"}))
    about = {"variant": variant, "trained": "tune" in settings, "pretrained": False}
    return replace(result, extra=result.extra | about)


def vocabulary(names: Iterable[str]) -> list[str]:
    """The names of genes, each once, sorted: the order of the file's genes does not enter."""
    return sorted({str(name) for name in names} - {""})


def start_attention(encoder: "Encoder") -> None:
    """Attention as torch.nn.MultiheadAttention starts (all else of ``encoder`` starts as torch does by itself)."""
    from torch import nn

    for layer in encoder.layers:
        nn.init.xavier_uniform_(layer.self_attn.in_proj_weight)
        nn.init.zeros_(layer.self_attn.in_proj_bias)
        nn.init.zeros_(layer.self_attn.out_proj.bias)
