"""scANVI and contrastiveVI by scvi-tools: scVI with the perturbation in the objective, trained on the fitting cells' labels.

scanvi (Xu et al. 2021, doi:10.15252/msb.20209620): scVI, then a mixture prior and a classifier of the label; the label of a
cell is its perturbation, controls are one class. contrastivevi (Weinberger et al. 2023, doi:10.1038/s41592-023-01955-3): two
latent spaces, one for what controls (the background) and perturbed cells (the target) share, one, salient, for the rest.
No encoder sees the batch, so cells of unseen batches are embedded by the same function. scvi-tools' contrastiveVI has no
option for that: its encoders are replaced by those of scVI, without covariates; the decoder keeps the batch.
"""

import warnings

import numpy as np

from plumbline.common.errors import NotApplicable, UserError
from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.objectives.labels import read_labels
from plumbline.models.runtime.devices import pick_device
from plumbline.models.scvi import scvi_model
from plumbline.models.scvi.scvi_model import MIN_CELLS, TrainingPlan
from plumbline.models.shared.fitting import choice, counts_share

LATENTS = ("salient", "both")
NO_LABEL = "unlabelled"  # the category scANVI wants to have; no cell is in it


def embed(counts: Counts, options: Options) -> Result:
    """Means of the latent posterior (n_cells, n_latent). Settings: architecture, latent, and those of scVI.

    Raises UserError without labels to train on; NotApplicable for values that are no counts or cells without contrast.
    """
    architecture = choice(options, "architecture", ("scanvi", "contrastivevi"))
    if options.get("untrained", False):
        raise UserError(f"--set untrained=true: architecture={architecture} is trained; only scvi can be left untrained.")
    plan = scvi_model.make_plan(counts, options)
    perturbation, is_control = read_labels(plan.part, options)
    device = pick_device(options.device)
    scvi, torch = scvi_model.libraries(options)
    train = _scanvi if architecture == "scanvi" else _contrastivevi
    model, encoders, facts = train(plan, np.where(is_control, "", perturbation), options, device)
    values = scvi_model.encode(counts, plan, model, device, encoders)
    about = {"architecture": architecture, "scvi_tools": scvi.__version__, "torch": torch.__version__, "device": device,
             "trained": True, **scvi_model.provenance(plan), **facts}  # fmt: skip
    return Result(
        values=values,
        genes_used=len(plan.genes),
        genes_total=counts.shape[1],
        counts_used=counts_share(counts, plan.genes),
        unembedded=0,
        extra=about,
    )


def _scanvi(plan: TrainingPlan, label: np.ndarray, options: Options, device: str) -> tuple:
    """scVI first, then scANVI from its weights, as scvi-tools recommends."""
    import scvi

    n_perturbations = len(np.unique(label[label != ""]))
    if n_perturbations < 2:
        raise NotApplicable(f"scANVI tells labels apart, and the fitting part has {n_perturbations} perturbation(s).")
    base, about = scvi_model.train(plan, options, device, label=label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=NO_LABEL, labels_key="label")
    epochs = max(2, min(10, round(about["max_epochs"] / 3)))  # scvi-tools' own rule for a model that scVI has trained
    facts = scvi_model.fit(model, epochs, options, device)
    return model, ("z_encoder",), {**facts, "epochs_scvi": about["epochs"], "n_classes": len(np.unique(label))}


def _contrastivevi(plan: TrainingPlan, label: np.ndarray, options: Options, device: str) -> tuple:
    from scvi.external import ContrastiveVI

    latent = choice(options, "latent", LATENTS)
    data = scvi_model.training_data(plan, label=label)
    control = (data.obs["label"] == "").to_numpy()
    if min(control.sum(), (~control).sum()) < MIN_CELLS:
        raise NotApplicable(
            f"contrastiveVI sets perturbed cells against controls and needs {MIN_CELLS} of each; the fitting part has "
            f"{(~control).sum()} and {control.sum()}."
        )
    width = max(1, plan.n_latent // 2)
    sizes = {"n_background_latent": width, "n_salient_latent": width, "n_hidden": plan.n_hidden, "n_layers": plan.n_layers}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ContrastiveVI.setup_anndata(data, batch_key="batch")
        model = ContrastiveVI(data, dropout_rate=0.0, **sizes)
    _without_covariates(model.module)
    parts = {"background_indices": np.flatnonzero(control).tolist(), "target_indices": np.flatnonzero(~control).tolist()}
    facts = scvi_model.fit(model, plan.max_epochs or scvi_model.heuristic_epochs(data.n_obs), options, device, **parts)
    facts |= {"latent": latent, "gene_likelihood": "zinb", "n_controls": int(control.sum())}
    return model, ("s_encoder",) if latent == "salient" else ("s_encoder", "z_encoder"), facts


def _without_covariates(module) -> None:
    """Replace both encoders by ones that do not see the batch; otherwise as scvi-tools makes them."""
    from scvi.nn import Encoder

    for name, width in (("z_encoder", module.n_background_latent), ("s_encoder", module.n_salient_latent)):
        encoder = Encoder(module.n_input, width, n_layers=module.n_layers, n_hidden=module.n_hidden,
                          dropout_rate=module.dropout_rate, distribution="normal", use_batch_norm=True)  # fmt: skip
        setattr(module, name, encoder)
