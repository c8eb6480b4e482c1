"""CellPLM's checkpoints: which one, what it describes, and its weights. They differ in the latent layer."""

import json
from pathlib import Path

import torch

from plumbline.common.errors import UserError, did_you_mean
from plumbline.embedding.damage import understood
from plumbline.embedding.options import Options
from plumbline.embedding.weights import fetch_hint, fill, find_folder, load_tensors, open_file
from plumbline.models.cellplm.network import LATENTS, Network

CHECKPOINTS = {"cellplm": ("20231027_85M", "vae"), "cellplm_gmvae": ("20230926_85M", "gmvae")}
# what the authors' code takes where a configuration says nothing, and what is implemented
DEFAULTS = {"norm": "layernorm", "cat_pe": True, "dsbn": False, "input_covariate": False, "latent_mod": "vae", "enc_head": 8}
FIXED = {"enc_mod": "flowformer", "norm": "groupnorm", "cat_pe": False, "dsbn": False, "input_covariate": False}
UNUSED = (  # parts of the pre-training model that no embedding depends on
    "decoder.",
    "embedder.norm0.",
    "embedder.pe_enc.",
    "latent.layers.1.hid_2sigma.",
    "latent.layers.1.inference.inference_qzyx.2.var.",
    "latent.layers.1.inference.y_mu.",
    "latent.layers.1.inference.y_var.",
)


def find_checkpoint(options: Options) -> tuple[Path, dict]:
    """(path of the weights, config): of setting checkpoint, else of the variant, else the only one with its latent layer."""
    variant = options.variant
    folder = find_folder(options.weights, "cellplm", "*.config.json", variant)
    found = {path.name.removesuffix(".config.json"): path for path in sorted(folder.glob("*.config.json"))}
    released, latent = CHECKPOINTS.get(variant, CHECKPOINTS["cellplm"])
    asked = str(options.get("checkpoint", "own"))
    if asked != "own" or released in found:
        prefix = released if asked == "own" else asked
        if prefix not in found:
            raise UserError(f"{folder} has no {prefix}.config.json.{did_you_mean(prefix, list(found))} {fetch_hint(variant)}")
        return folder / f"{prefix}.best.ckpt", read_config(found[prefix], variant)
    fitting = {
        prefix: config for prefix, path in found.items() if (config := read_config(path, variant))["latent_mod"] == latent
    }
    if len(fitting) != 1:
        names = ", ".join(found) or "none"
        raise UserError(
            f"{folder} has {len(fitting)} checkpoints with a {latent} latent layer (found: {names}); say which "
            f"with --set checkpoint=PREFIX. {fetch_hint(variant)}"
        )
    prefix, config = next(iter(fitting.items()))
    return folder / f"{prefix}.best.ckpt", config


def read_config(path: Path, variant: str) -> dict:
    """A checkpoint's configuration, checked to describe the model implemented here."""
    with understood(path, "is no CellPLM configuration", variant):
        with open_file(path, variant) as stream:
            config = DEFAULTS | json.load(stream)
        other = [f"{name}={config[name]}" for name, value in FIXED.items() if config[name] != value]
        lacking = next((name for name in ("enc_layers", "post_latent_dim", "gene_list") if name not in config), None)
        if lacking:
            raise KeyError(lacking)
        if config["enc_hid"] % config["enc_head"]:
            raise ValueError(f"{config['enc_head']} attention heads cannot share a width of {config['enc_hid']}")
    if other or config["latent_mod"] not in LATENTS:
        what = ", ".join(other) or f"latent_mod={config['latent_mod']}"
        raise UserError(f"{path} describes a CellPLM with {what}, which no released checkpoint has and this code does not do.")
    return config


def load_network(path: Path, config: dict, variant: str) -> Network:
    """The network with a checkpoint's weights. Raises UserError on a missing, unexpected or misshapen tensor."""
    tensors = load_tensors(path, variant)
    if "model_state_dict" not in tensors:
        raise UserError(f"{path} is no CellPLM checkpoint: it has no model_state_dict. {fetch_hint(variant)}")
    with torch.device("meta"):
        network = Network(config)
    fill(network, tensors["model_state_dict"], path, variant, ignore=UNUSED)
    return network.eval()
