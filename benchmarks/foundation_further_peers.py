"""What bench_foundation_further.py compares: checkpoints of the published sizes, our models on them, and upstream's procedures.

A peer is upstream's procedure on the same weights and cells, with torch's own modules where upstream's layers are torch's.
"""

from pathlib import Path

import numpy as np
from bench_foundation import N_GENES


def make_scfoundation(folder: Path) -> None:
    """12 layers of 768, 12 heads, 100 bins."""
    from plumbline.models.scfoundation.network import Architecture
    from plumbline.models.scfoundation.untrained import write_checkpoint

    shape = Architecture(width=768, heads=12, layers=12, bins=100, alpha=1.0)
    write_checkpoint(folder, [f"G{number}" for number in range(N_GENES)], 0, shape)


def make_scimilarity(folder: Path) -> None:
    """28,231 genes, three layers of 1024, 128 dimensions."""
    from plumbline.models.scimilarity.untrained import write_checkpoint

    write_checkpoint(folder, [f"G{number}" for number in range(28231)], 0, (1024, 1024, 1024, 128))


def make_tahoe_x1(folder: Path) -> None:
    """70 M parameters: 12 layers of 512, 8 heads."""
    from plumbline.models.tahoe_x1.untrained import write_checkpoint

    genes = [f"ENSG{number:011d}" for number in range(62717)]
    write_checkpoint(folder, genes, 0, {"d_model": 512, "n_heads": 8, "n_layers": 12})


def build_scfoundation(folder: Path, counts, device: str):
    import embed_scfoundation
    from plumbline.models.scfoundation import tokens

    names = tokens.read_genes(tokens.gene_file(folder), "own")
    tokenizer = tokens.Tokenizer(counts.symbol, names, tokens.read_target("t4"), False)
    return embed_scfoundation.build_model(folder / "models.ckpt", "cell", "own", len(names), tokenizer, "all", device)


def build_scimilarity(folder: Path, counts, device: str):
    import embed_scimilarity
    from plumbline.models.scimilarity.tokens import Tokenizer, read_genes

    names = read_genes(folder / "gene_order.tsv", "own")
    return embed_scimilarity.build_model(folder, len(names), "own", Tokenizer(counts.symbol, names), device)


def build_tahoe_x1(folder: Path, counts, device: str):
    import embed_tahoe_x1
    from plumbline.models.shared.chance import CellChance
    from plumbline.models.tahoe_x1.files import read_encoding
    from plumbline.models.tahoe_x1.tokens import Tokenizer

    encoding = read_encoding(folder, "own")
    tokenizer = Tokenizer(counts.ensembl_id, encoding, 2048, "token", CellChance(counts.cell_id, 42))
    return embed_tahoe_x1.build_model(folder, "own", encoding, tokenizer, device)


def torch_layers(layers, norm_first: bool, names: dict[str, str]) -> list:
    """torch's own encoder layers with the weights of ``layers``."""
    from torch import nn

    made = []
    for layer in layers:
        width, heads = layer.norm1.weight.shape[0], layer.self_attn.heads
        inner = next(tensor for name, tensor in layer.named_parameters() if name.startswith(("up_proj.w", "linear1.w"))).shape[
            0
        ]
        state = {f"{names.get(name.split('.')[0], name.split('.')[0])}.{name.partition('.')[2]}": tensor
                 for name, tensor in layer.state_dict().items()}  # fmt: skip
        new = nn.TransformerEncoderLayer(width, heads, inner, batch_first=True, norm_first=norm_first).eval()
        new.load_state_dict(state)
        made.append(new)
    return made


def batches(model, counts, size: int) -> list[list]:
    """Padded batches of ``size`` cells in file order."""
    import torch

    from plumbline.models.runtime.batches import pad

    ragged = model.encode(*next(counts.blocks()))
    starts, cells = np.concatenate([[0], np.cumsum(ragged.length)]), np.arange(len(ragged.length))
    parts = np.split(cells, range(size, len(cells), size))
    return [[torch.from_numpy(array) for array in pad(ragged, starts, part, model.fills)] for part in parts]


def peer_scfoundation(model, counts):
    """One cell at a time through torch.nn.TransformerEncoderLayer."""
    import torch

    network = model.network
    layers = torch_layers(network.encoder.layers, False, {})

    def embed() -> np.ndarray:
        out = []
        for _, tokens, values in batches(model, counts, 1):
            x = network.token_emb(values) + network.pos_emb(tokens)
            for layer in layers:
                x = layer(x)
            x = network.encoder.norm(x)[0]
            out.append(torch.cat([x[0], x[1], x[2:].amax(dim=0), x[2:].mean(dim=0)]))
        return torch.stack(out).numpy()

    return embed


def peer_scimilarity(model, counts):
    """A dense matrix of all genes, normalised, through the network."""
    import torch

    def embed() -> np.ndarray:
        out = []
        for _, block in counts.blocks():
            dense = torch.from_numpy((block @ model.tokenizer.to_list).toarray().astype(np.float32))
            dense = torch.log1p(dense / dense.sum(dim=1, keepdim=True) * 1e4)
            out.append(torch.nn.functional.normalize(model.network.network(dense), dim=1))
        return torch.cat(out).numpy()

    return embed


def peer_tahoe_x1(model, counts):
    """Batches of 8 in file order, every position of every block."""
    import torch

    network, names = model.network, {"up_proj": "linear1", "down_proj": "linear2"}
    layers = torch_layers(network.transformer_encoder.layers, True, names)

    def embed() -> np.ndarray:
        out = []
        for length, tokens, values in batches(model, counts, 8):
            x = network.gene_encoder(tokens) + network.expression_encoder(values)
            padding = torch.arange(x.shape[1]) >= length[:, None]
            for layer in layers:
                x = layer(x, src_key_padding_mask=padding)
            out.append(torch.nn.functional.normalize(network.transformer_encoder.norm(x)[:, 0], dim=1))
        return torch.cat(out).numpy()

    return embed


def make_transcriptformer(folder: Path) -> None:
    """TF-Sapiens: 12 layers of 2048, 16 heads, protein vectors of 2560."""
    from dataclasses import replace

    from plumbline.models.transcriptformer import untrained

    untrained.PROTEIN = 2560
    genes = [f"ENSG{number:011d}" for number in range(23822)]
    untrained.write_checkpoint(folder, genes, 0, replace(untrained.TINY, width=2048, inner=2048, heads=16, layers=12))


def make_scconcept(folder: Path) -> None:
    """30 M parameters: 8 layers of 512, 8 heads, 1000 genes of a cell."""
    from dataclasses import replace

    from plumbline.models.scconcept.untrained import TINY, write_checkpoint

    genes = [f"ENSG{number:011d}" for number in range(N_GENES)]
    write_checkpoint(folder, genes, 0, replace(TINY, width=512, gene_width=512, heads=8, inner=1024, layers=8))


def make_nicheformer(folder: Path) -> None:
    """12 layers of 512, 16 heads, context of 1500, 20,310 genes."""
    from dataclasses import replace

    from plumbline.models.nicheformer.untrained import TINY, write_checkpoint

    genes = [f"ENSG{number:011d}" for number in range(20310)]
    write_checkpoint(folder, genes, 0, replace(TINY, width=512, heads=16, inner=1024, layers=12))


def make_state(folder: Path) -> None:
    """SE-600M as far as it is published: 16 layers of 2048, protein vectors of 5120; 16 heads and 4096 inside are assumed."""
    from dataclasses import replace

    from plumbline.models.state.untrained import TINY, write_checkpoint

    genes = [f"G{number}" for number in range(4000)]
    shape = replace(TINY, width=2048, heads=16, inner=4096, layers=16, output=2048, protein=5120)
    write_checkpoint(folder, genes, 0, shape)


def build_transcriptformer(folder: Path, counts, device: str):
    from plumbline.models.shared.columns import match
    from plumbline.models.transcriptformer import embedding, files, tokens

    config = files.read_config(folder, "own")
    vocabulary = embedding.checkpoint.own_vocabulary(folder, config, "own")
    columns = match(counts.ensembl_id, vocabulary.token)
    source = embedding.Source(folder=folder, config=config, vocabulary=vocabulary, variant="own")
    tokenizer = tokens.Tokenizer(columns, vocabulary.start, config.context, 30, None)
    return embedding.build(source, tokenizer, "context", "cells", device)


def build_scconcept(folder: Path, counts, device: str):
    from plumbline.models.scconcept import embedding, files, tokens

    genes, config = files.read_genes(folder, "hsapiens", "own"), files.read_config(folder, "own")
    source = embedding.Source(folder=folder, config=config, genes=genes, species="hsapiens", variant="own")
    known = tokens.tokens_of(counts.ensembl_id, counts.symbol, genes, False)
    return embedding.build(source, tokens.Tokenizer(known, config.max_tokens, "top-nonzero"), True, device)


def build_nicheformer(folder: Path, counts, device: str, padding: bool = True):
    from plumbline.embedding.options import Options
    from plumbline.models.nicheformer.files import find_files, read_genes, read_means
    from plumbline.models.nicheformer.network import build
    from plumbline.models.nicheformer.tokens import Tokenizer, divisors
    from plumbline.models.shared.columns import match

    told = {"variant": "own", "tables": None, "fit_on": "none", "seed": 42, "device": "cpu", "batch_size": 0, "threads": 1}
    files = find_files(Options(weights=folder, settings={}, **told), "dissociated")
    ids = read_genes(files.genes, "own")
    columns = match(counts.ensembl_id, {name: at for at, name in enumerate(ids)})
    means = divisors(read_means(files.means, len(ids), "own"), "rounded", len(ids))
    return build(files, "own", -1, False, Tokenizer(columns, means, [5, 15, 3], 1500, padding), device)


def build_nicheformer_mask(folder: Path, counts, device: str):
    return build_nicheformer(folder, counts, device, padding=False)


def build_state(folder: Path, counts, device: str):
    from plumbline.models.shared.columns import match
    from plumbline.models.state import embedding, tokens

    place = {f"G{number}": number for number in range(4000)}
    rule = tokens.Rule(length=2048, kind="counts", cls_column=None)
    tokenizer = tokens.Tokenizer(match(counts.symbol, place), rule, tokens.CellChance(counts.cell_id, 42))
    return embedding.build(folder / "untrained.ckpt", "own", tokenizer, False, True, device)


def peer_transcriptformer(model, counts):
    """One cell at a time, padded to the context; every key of every query; gene vectors and gene head at every position."""
    import torch
    from torch.nn import functional as F

    network, config = model.network, model.config
    layers = network.transformer_encoder["encoder_layers"]
    head = torch.nn.Linear(config.width, 23829)  # gene_id_head, which upstream computes beside the embedding
    vectors = torch.randn(len(model.genes), 2560)

    def attend(layer, x, bias, unseen):
        n, t, width = x.shape
        q, k, v = (linear(x).view(n, t, config.heads, -1).transpose(1, 2) for linear in layer.linears[:3])
        logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + bias[:, None, None]
        logits = config.softcap * torch.tanh(logits / config.softcap)
        weights = logits.masked_fill(unseen, torch.finfo(logits.dtype).min).softmax(dim=-1)
        return layer.linears[3]((weights @ v).transpose(1, 2).reshape(n, t, width))

    def embed() -> np.ndarray:
        out = []
        for length, tokens, values in batches(model, counts, 1):
            room = config.context - tokens.shape[1]
            tokens, values = F.pad(tokens.long(), (0, room), value=model.fills[0]), F.pad(values, (0, room))
            network.project(vectors[tokens])  # once per position, as upstream; the vectors themselves are those of the model
            x, bias = model.genes[tokens], torch.log1p(values + config.eps)
            place = torch.arange(x.shape[1])
            unseen = (place > place[:, None]) | (place >= length[:, None])[:, None, None]
            for layer in layers:
                h = layer.norm1(x)
                h = layer.norm2(h + attend(layer.self_attn, h, bias, unseen))
                x = h + layer.linear2(F.gelu(layer.linear1(h)))
            head(x)
            out.append((x * (place < length[:, None])[..., None]).sum(dim=1) / config.context)
        return torch.cat(out).numpy()

    return embed


def peer_scconcept(model, counts):
    """Batches of 64 in file order, every position of every layer, the network of gene vectors at every position."""
    import torch
    from torch import nn

    network = model.network
    layers = torch_layers(network.transformer_encoder.layers, True, {})
    for layer in layers:
        layer.activation = nn.functional.gelu
        layer.activation_relu_or_gelu = 2
    rows = torch.randn(len(model.genes), network.gene_token_encoder.adapter2.in_features)

    def embed() -> np.ndarray:
        out = []
        for length, tokens, values in batches(model, counts, 64):
            network.gene_token_encoder(rows[tokens.long()], None)  # the vectors themselves are those of the model
            x = network.start(model.genes[tokens.long()], values)
            padding = torch.arange(x.shape[1]) >= length[:, None]
            for layer in layers:
                x = layer(x, src_key_padding_mask=padding)
            out.append(nn.functional.normalize(x[:, 0], dim=1))
        return torch.cat(out).numpy()

    return embed


def peer_nicheformer(model, counts):
    """Batches of 32 in file order, always 1500 positions."""
    import torch

    network = model.network
    layers = torch_layers(network.encoder.layers, False, {})
    for layer in layers:
        layer.norm1.eps = layer.norm2.eps = 1e-12

    def embed() -> np.ndarray:
        out = []
        for length, tokens in batches(model, counts, 32):
            tokens = torch.nn.functional.pad(tokens.long(), (0, 1500 - tokens.shape[1]), value=model.fills[0])
            x = network.embeddings["weight"][tokens] + network.positional_embedding["weight"]
            padding = tokens == model.fills[0]
            for layer in layers:
                x = layer(x, src_key_padding_mask=padding if bool(padding.any()) else None)
            inside = torch.arange(1500) < length[:, None]
            inside[:, :3] = False
            out.append((x * inside[..., None]).sum(dim=1) / inside.sum(dim=1)[:, None])
        return torch.cat(out).numpy()

    return embed


def peer_state(model, counts):
    """One cell at a time, the network of gene vectors, every layer and the decoder at every position."""
    import torch
    from torch import nn

    network = model.network
    layers = torch_layers(network.transformer_encoder.layers, False, {})
    for layer in layers:
        layer.activation = nn.functional.gelu
        layer.activation_relu_or_gelu = 2
    vectors = torch.randn(len(model.genes), network.encoder[0].in_features)

    def embed() -> np.ndarray:
        out = []
        for _, tokens, values in batches(model, counts, 1):
            network.encoder(vectors[tokens.long()])  # the vectors themselves are those of the model
            x = model.start(tokens, values)
            for layer in layers:
                x = layer(x)
            out.append(nn.functional.normalize(network.decoder(x)[:, 0], dim=1))
        return torch.cat(out).numpy()

    return embed


NAMES = ("scfoundation", "scimilarity", "tahoe_x1", "transcriptformer", "scconcept", "nicheformer", "state")
MAKE, BUILD, PEERS = ({name: globals()[f"{kind}_{name}"] for name in NAMES} for kind in ("make", "build", "peer"))
MAKE["nicheformer_mask"], BUILD["nicheformer_mask"] = make_nicheformer, build_nicheformer_mask
PEERS["nicheformer_mask"] = peer_nicheformer
