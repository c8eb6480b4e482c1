"""The procedures that bench_foundation.py compares with: the upstream package where it installs, else its steps, plainly.

Each returns (embed, about): ``embed()`` gives (n_cells, d) for the cells of the file, everything loaded beforehand.
"""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np

Peer = tuple[Callable[[], np.ndarray], str]


def scgpt(folder: Path, counts: Path, packages: Path | None) -> Peer:
    """scgpt's own get_batch_cell_embeddings and TransformerModel (batches of 64 in file order, a loader worker a core)."""
    import json

    import anndata as ad

    if packages is None:
        return scgpt_steps(folder, counts)
    _stand_in_for_unused_imports(packages)
    import torch
    from scgpt.model import TransformerModel
    from scgpt.tasks.cell_emb import get_batch_cell_embeddings
    from scgpt.utils import load_pretrained

    vocab, args = json.loads((folder / "vocab.json").read_text()), json.loads((folder / "args.json").read_text())
    sizes = {"d_model": args["embsize"], "nhead": args["nheads"], "d_hid": args["d_hid"], "nlayers": args["nlayers"]}
    switches = {"do_mvc": True, "do_dab": False, "use_batch_labels": False, "domain_spec_batchnorm": False}
    model = TransformerModel(
        ntoken=len(vocab), nlayers_cls=3, n_cls=1, vocab=vocab, dropout=0.2, pad_token="<pad>", pad_value=-2,
        explicit_zero_prob=False, use_fast_transformer=False, pre_norm=False, **sizes, **switches,
    )  # fmt: skip
    load_pretrained(model, torch.load(folder / "best_model.pt", map_location="cpu"), verbose=False)
    model.eval()
    adata = ad.read_h5ad(counts)
    ids = np.array([vocab[name] for name in adata.var["symbol"]])
    run = {"cell_embedding_mode": "cls", "model": model, "vocab": vocab, "max_length": 1200, "batch_size": 64}
    about = "scgpt 0.2.4, installed without its dependencies (torchtext and others that its embedding does not use stubbed)"
    return lambda: get_batch_cell_embeddings(adata, model_configs=args, gene_ids=ids, **run), about


def scgpt_steps(folder: Path, counts: Path) -> Peer:
    """torch.nn.TransformerEncoder over batches of 64 in file order, as scgpt runs it without flash-attention."""
    import torch
    from torch import nn

    from plumbline.models.runtime.batches import pad
    from plumbline.models.scgpt.network import load_scgpt, read_args

    model, tokens = load_scgpt(folder, "scgpt", 60697), _tokens("scgpt", folder, counts)
    shape = read_args(folder, "scgpt")
    layer = nn.TransformerEncoderLayer(shape.width, shape.heads, shape.inner, batch_first=True)
    encoder = nn.TransformerEncoder(layer, shape.layers).eval()
    encoder.load_state_dict(model.transformer_encoder.state_dict())
    values = torch.cat([torch.tensor([-2.0]), torch.arange(1, 51)])
    starts = np.concatenate([[0], np.cumsum(tokens.length)])

    def embed() -> np.ndarray:
        out = []
        for cells in np.split(np.arange(len(tokens.length)), range(64, len(tokens.length), 64)):
            length, ids, bins = (torch.from_numpy(part) for part in pad(tokens, starts, cells, (60694, 0)))
            x = model.encoder(ids) + model.value_encoder(values[bins])
            out.append(encoder(x, src_key_padding_mask=torch.arange(x.shape[1]) >= length[:, None])[:, 0])
        return nn.functional.normalize(torch.cat(out), dim=1).numpy()

    return embed, "the steps of scgpt 0.2.4: torch.nn.TransformerEncoder, batches of 64 in file order"


def geneformer(folder: Path, counts: Path, packages: Path | None) -> Peer:
    """The authors' EmbExtractor: BertForMaskedLM with its vocabulary head, cells by length, batches of 8."""
    import torch
    import transformers

    from plumbline.models.runtime.batches import pad

    model = transformers.BertForMaskedLM.from_pretrained(folder, output_hidden_states=True).eval()
    tokens = _tokens("geneformer", folder, counts)
    starts, order = np.concatenate([[0], np.cumsum(tokens.length)]), np.argsort(-tokens.length, kind="stable")

    def embed() -> np.ndarray:
        out = np.zeros((len(order), model.config.hidden_size), dtype=np.float32)
        for cells in np.split(order, range(8, len(order), 8)):
            length, ids = (torch.from_numpy(part) for part in pad(tokens, starts, cells, (0,)))
            mask = (torch.arange(ids.shape[1]) < length[:, None]).long()
            hidden = model(input_ids=ids.long(), attention_mask=mask).hidden_states[-2]
            out[cells] = ((hidden * mask[..., None]).sum(1) / length[:, None]).numpy()
        return out

    return embed, f"the steps of the authors' EmbExtractor on transformers {transformers.__version__}, batches of 8"


def uce(folder: Path, counts: Path, packages: Path | None) -> Peer:
    """The authors' eval_single_anndata: every position through token network, last layer and decoder."""
    import torch
    from torch import nn

    from plumbline.models.runtime.batches import pad
    from plumbline.models.uce.network import load_network

    network, table = load_network(folder / "4layer_model.torch", "uce_4l")
    ours = network.transformer_encoder.layers
    layer = nn.TransformerEncoderLayer(1280, 20, ours[0].linear1.out_features)
    encoder = nn.TransformerEncoder(layer, len(ours)).eval()
    encoder.load_state_dict(network.transformer_encoder.state_dict())
    tokens = _tokens("uce", folder, counts)
    starts = np.concatenate([[0], np.cumsum(tokens.length)])

    def embed() -> np.ndarray:
        out = []
        for cells in np.split(np.arange(len(tokens.length)), range(25, len(tokens.length), 25)):
            length, ids = (torch.from_numpy(part) for part in pad(tokens, starts, cells, (0,)))
            x = network.project(table[ids.T.long()]) + network.pos_encoder.pe[: ids.shape[1]]
            hidden = encoder(x, src_key_padding_mask=torch.arange(ids.shape[1]) >= length[:, None])
            out.append(nn.functional.normalize(network.decoder(hidden)[0], dim=1))
        return torch.cat(out).numpy()

    return embed, "the steps of the authors' eval_single_anndata on the same sentences, padding masked, batches of 25"


def _tokens(kind: str, folder: Path, counts: Path):
    """The sequences of every cell: tokenising is not timed for a peer that is given them."""
    from bench_foundation import build_ours

    from plumbline.counts.reading import open_counts

    opened = open_counts(counts)
    return build_ours(kind, folder, opened)("cpu").encode(*next(opened.blocks()))


def _stand_in_for_unused_imports(packages: Path) -> None:
    """scgpt imports much that its embedding never calls; what is missing here is replaced by empty modules."""
    from unittest.mock import MagicMock

    sys.path.insert(0, str(packages))
    vocab = types.ModuleType("torchtext.vocab")
    vocab.Vocab = type("Vocab", (), {})  # a base class
    sys.modules["torchtext.vocab"] = vocab
    sys.modules["torchtext"] = types.ModuleType("torchtext")
    sys.modules["torchtext"].vocab = vocab
    for name in ("IPython", "networkx", "seaborn", "gseapy", "igraph", "scib", "datasets"):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = MagicMock()
