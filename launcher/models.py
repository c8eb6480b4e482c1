"""Which environments a run needs: the models it names, looked up in assets/models.csv."""

import csv
import re
from pathlib import Path

from launcher.home import REPO
from plumbline.common.errors import UserError, did_you_mean

ENGINES = ("docker", "podman", "singularity", "apptainer", "charliecloud", "conda", "mamba", "wave")


def rows() -> list[dict[str, str]]:
    """The model table, a variant a row."""
    with (REPO / "assets/models.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def variant(name: str) -> dict[str, str]:
    """The row of a variant. Raises UserError on an unknown name."""
    known = {row["id"]: row for row in rows()}
    if name not in known:
        raise UserError(f"There is no model {name!r} in assets/models.csv.{did_you_mean(name, list(known))}")
    return known[name]


def with_weights(folder: Path) -> list[str]:
    """The foundation models whose checkpoint files, as `plumb fetch` lays them out, all lie in a folder of weights.

    Those that are then trained on the data set (fit_on train) belong to an experiment, and are left out.
    """
    found = []
    for row in (row for row in rows() if row["fit_on"] == "none"):
        files = [name.partition("=")[0] for name in row["weights_files"].split(";") if name]
        if files and all((folder / row["model"] / name).exists() for name in files):
            found.append(row["id"])
    return found


def untrained() -> list[str]:
    """The foundation models' architectures with random weights."""
    foundation = {row["model"] for row in rows() if row["role"] == "foundation"}
    return [row["id"] for row in rows() if row["model"] in foundation and "untrained=true" in row["settings"].split(";")]


def value(arguments: list[str], option: str) -> str | None:
    """The value of an option, given as `-o value` or `-o=value`; the last one counts."""
    found = None
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def without(arguments: list[str], option: str) -> list[str]:
    """The arguments less an option and its value."""
    kept, skip = [], False
    for word in arguments:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option
    return kept


def parameter(arguments: list[str], profiles: list[str], name: str) -> str | None:
    """A pipeline parameter as Nextflow would see it: command line, -params-file, -c, profiles, nextflow.config."""
    given = value(arguments, f"--{name}")
    if given is not None:
        return given
    pattern = re.compile(rf"""(?:^|[{{,])\s*["']?{name}["']?\s*[:=]\s*["']?([^"'\n/#]+)""", re.MULTILINE)
    files = [value(arguments, "-params-file"), value(arguments, "-c")]
    files += [REPO / "conf" / f"{profile}.config" for profile in reversed(profiles)] + [REPO / "nextflow.config"]
    for file in filter(None, files):
        found = pattern.search(Path(file).read_text()) if Path(file).is_file() else None
        if found:
            return found[1].strip()
    return None


def experiment_variants(experiments: str | None) -> set[str]:
    """The variants that experiments add. Those with a checkpoint need what their model needs, which --models names then."""
    asked = {name.strip() for name in (experiments or "").split(",")} - {"", "null"}
    with (REPO / "assets/experiments.csv").open(newline="") as table:
        added = {row["variant"] for row in csv.DictReader(table) if {row["experiment"], "all"} & asked}
    return added - {row["id"] for row in rows() if row["role"] == "foundation"}


def environments(arguments: list[str], profiles: list[str]) -> list[str]:
    """The environments of a run, the tools' own included. Unknown models are left to the pipeline, which explains them."""
    if "--estimate_only" in arguments:
        return ["base"]
    wanted = {name.strip() for name in (parameter(arguments, profiles, "models") or "all").split(",")}
    wanted |= experiment_variants(parameter(arguments, profiles, "experiments"))
    needed = [row["env"] for row in rows() if "all" in wanted or {row["id"], row["model"]} & wanted]
    return list(dict.fromkeys(["base", *needed, "multiqc"]))
