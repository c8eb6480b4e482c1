"""What to do next where something is not applicable or failed: a rule per kind of reason, in words of the command line."""

import re

# (pattern of the reason, what to do next); the first that matches is used. Patterns quote the reasons of tasks and models.
FAILED = (
    (r"out of (GPU )?memory|CUDA out of memory|OutOfMemory|exit status (137|66)\b",
     "Give the task more memory, or a smaller --batch_size for a GPU; then repeat the same command with -resume."),
    (r"time limit|exit status (140|143)\b",
     "Give the task more time (process.time in a -c file); then repeat the same command with -resume."),
    (r"ModuleNotFoundError|ImportError|command not found|exit status (126|127)\b",
     "An environment is incomplete: run ./plumb doctor, then repeat the same command with -resume."),
    (r"checkpoint|sha256|weights",
     "Fetch the checkpoint again (./plumb fetch VARIANT --output WEIGHTS), then repeat the same command with -resume."),
    (r"do not hold the same cells|cell id|missing.*extra",
     "Embed exactly the cells of data/NAME/tables/cells.parquet, keyed by their cell ids; extra cells: --set extra=drop."),
)  # fmt: skip
NOT_APPLICABLE = (
    (
        r"unexpressed|null of|paper's null|no null|threshold of expression|corrected for multiple|corrected prot|paper's prot",
        "Nothing to do: the protocol corrected has this score where the data allow one.",
    ),
    (r"human genes only|ortholog|has tokens of|no proteins of",
     "Use a model of this organism, or give a table of one-to-one orthologs (--model_settings VARIANT:orthologs=FILE)."),
    (r"none of the .*(genes|ids|symbols)|is the organism right",
     "Check the columns symbol and ensembl_id of the input, and the column organism of the sheet."),
    (r"(needs|reads|model of|genes by) .*counts|holds? .*values",
     "Give raw counts: name the layer that holds them in the column layer of the sheet."),
    (r"one batch|no batches|nothing to mix|batch(es)?: there is",
     "Name the column of batches in the sheet (batch_column). If there was one batch, nothing is missing."),
    (r"no controls?\b|has none|aligns on controls|control cell",
     "Name the label of the controls in the sheet (control_label). Without controls, nothing is missing."),
    (r"known to|no source knows|perturbed genes are among|complexes have",
     "Use a screen with more perturbed genes, or names that are gene symbols or Ensembl ids."),
    (r"compounds|between human genes",
     "Nothing to do: known relationships of genes do not apply to this data set."),
    (r"perturbations?\b.*(1|one)\b|(1|one) perturbation|0 perturbations|no perturbation|nothing to tell apart|classes:",
     "Nothing to do: the question needs more perturbations than this data set has."),
    (r"too few|fewer than|are needed|held-out|test2",
     "Use a larger data set, or --seeds with other splits; the first section names the units that are needed."),
)  # fmt: skip
OTHERWISE = {
    "failed": "Read .command.err in the task's folder (the reason and .nextflow.log name it); after the cause is fixed, repeat "
    "the same command with -resume: finished tasks are kept.",
    "not_applicable": "Nothing to do: the model or the task does not fit this data set. Everything else was scored.",
}


def next_step(status: str, reason: str) -> str:
    """What a user can do about a missing score. status: 'failed' or 'not_applicable'; reason: as in scores.tsv.

    A failed step is never answered with advice on data that are not suitable, and the other way round.
    """
    rules = FAILED if status == "failed" else NOT_APPLICABLE
    found = (advice for pattern, advice in rules if re.search(pattern, reason, re.IGNORECASE))
    return next(found, OTHERWISE[status])
