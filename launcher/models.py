"""Which environments a run needs: the models it names, looked up in assets/models.csv."""

import csv
from pathlib import Path

from launcher.home import REPO
from launcher.parameters import Parameters
from plumbline.common.errors import UserError, did_you_mean
from plumbline.embedding.variants import read_rows


def variant(name: str) -> dict[str, str]:
    """The row of a variant. Raises UserError on an unknown name."""
    known = {row["id"]: row for row in read_rows()}
    if name not in known:
        raise UserError(f"There is no model {name!r} in assets/models.csv.{did_you_mean(name, list(known))}")
    return known[name]


def with_weights(folder: Path) -> list[str]:
    """The foundation models whose checkpoint files, as `plumb fetch` lays them out, all lie in a folder of weights.

    Those that are then trained on the data set (fit_on train) belong to an experiment, and are left out.
    """
    found = []
    for row in (row for row in read_rows() if row["fit_on"] == "none"):
        files = [name.partition("=")[0] for name in row["weights_files"].split(";") if name]
        if files and all((folder / row["model"] / name).exists() for name in files):
            found.append(row["id"])
    return found


def untrained() -> list[str]:
    """The foundation models' architectures with random weights."""
    foundation = {row["model"] for row in read_rows() if row["role"] == "foundation"}
    return [row["id"] for row in read_rows() if row["model"] in foundation and "untrained=true" in row["settings"].split(";")]


def experiment_variants(experiments: str | None) -> set[str]:
    """The variants that experiments add. Those with a checkpoint need what their model needs, which --models names then."""
    asked = {name.strip() for name in (experiments or "").split(",")} - {"", "null"}
    with (REPO / "assets/experiments.csv").open(newline="") as table:
        added = {row["variant"] for row in csv.DictReader(table) if {row["experiment"], "all"} & asked}
    return added - {row["id"] for row in read_rows() if row["role"] == "foundation"}


def needs_weights(row: dict[str, str], settings: list[str]) -> bool:
    """Whether a variant cannot do without its authors' checkpoint."""
    return row["role"] == "foundation" and "untrained=true" not in settings


def environments(parameters: Parameters) -> list[str]:
    """The environments of a run, the tools' own included. Unknown models are left to the pipeline, which explains them."""
    if parameters.get("estimate_only") == "true" or "--estimate_only" in parameters.arguments:
        return ["base"]
    wanted = {name.strip() for name in (parameters.get("models") or "").split(",")}
    wanted |= experiment_variants(parameters.get("experiments"))
    needed = [row["env"] for row in read_rows() if {row["id"], row["model"]} & wanted]
    return list(dict.fromkeys(["base", *needed, "multiqc"]))
