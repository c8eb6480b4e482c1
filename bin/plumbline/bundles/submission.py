"""What a submission states of its model, and the checklist that it has to meet."""

import re
from dataclasses import dataclass
from pathlib import Path

from plumbline.bundles.manifest import Bundle
from plumbline.embedding.contamination import ANSWERS, seen
from plumbline.embedding.variants import read_rows

PLUMBLINE = "https://github.com/plumbline/plumbline"
LEAST_DRAWS, LEAST_SEEDS = 1000, 5
STATED = {
    "code": "URL of the code that makes the embedding",
    "code_licence": "licence of that code (SPDX name)",
    "weights": "URL of the weights; 'none' for a model without",
    "weights_licence": "licence of the weights; 'none' without",
    "corpus": "data that the weights were trained on; 'none' without",
    "seen": "was the model trained on cells of this data set: yes, no or unknown",
}


@dataclass(frozen=True)
class Item:
    """One line of the checklist."""

    name: str
    text: str
    met: bool


def stated_of(variant: str, dataset: dict) -> dict[str, str]:
    """What models.csv and contamination.csv state of a variant; '' where nothing is known. dataset: its facts."""
    row = _row(variant)
    if row is None:
        return dict.fromkeys(STATED, "") | {"seen": "unknown"}
    pretrained = bool(row["weights_files"])
    weights = {"weights": row["weights_source"], "weights_licence": row["weights_licence"], "corpus": row["corpus"]}
    return {
        "code": PLUMBLINE,
        "code_licence": row["code_licence"] or "Apache-2.0",
        **(weights if pretrained else dict.fromkeys(weights, "none")),
        "seen": seen_of(variant, dataset, {})[0],
    }


def seen_of(variant: str, dataset: dict, submission: dict) -> tuple[str, str]:
    """yes, no or unknown, and who says so: contamination.csv for the models that plumbline knows, else the submitter."""
    row = _row(variant)
    if row is None:
        answer = submission.get("seen")
        return (answer, "stated by the submitter") if answer in ("yes", "no") else ("unknown", "not stated by the submitter")
    answer, source = seen(row, {name: value or "" for name, value in dataset.items()})
    return (answer, source) if answer else ("no", "not pre-trained")


def _row(variant: str) -> dict[str, str] | None:
    return {row["id"]: row for row in read_rows()}.get(variant)


def default_revision(variant: str, version: str, embedding: str) -> str:
    """The revision of the weights, of plumbline for a model that it trains, else digits of the embedding's sha256."""
    row = _row(variant)
    if row is None:
        return embedding[:12]
    text = row["weights_revision"] if row["weights_files"] else f"plumbline-{version}"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:40].strip("-.") or embedding[:12]


def checklist(bundle: Bundle) -> list[Item]:
    """Every requirement of a submission, and whether the bundle meets it. The issue template lists the same."""
    manifest, stated = bundle.manifest, bundle.manifest["submission"]
    settings, left_out = manifest["settings"], manifest["left_out"]
    web = re.compile(r"https?://\S+")
    return [
        Item("embedding", "The embedding is in the bundle, so that its scores can be verified", "embedding" not in left_out),
        Item("seeds", f"At least {LEAST_SEEDS} split seeds", len(settings["seeds"]) >= LEAST_SEEDS),
        Item("protocol", "Scored under the protocol `corrected`", "corrected" in settings["protocols"]),
        Item("draws", f"Nulls of at least {LEAST_DRAWS:,} draws", settings["n_draws"] >= LEAST_DRAWS),
        Item("baseline", "Compared with the baseline `pca`", settings["baseline"] == "pca"),
        Item("code", "The code is public: a URL (`--code`)", bool(web.match(str(stated.get("code", ""))))),
        Item("licence", "Licences of code and weights are stated (`--code-licence`, `--weights-licence`)",
             all(stated.get(name) for name in ("code_licence", "weights_licence"))),
        Item("corpus", "The training data are stated (`--corpus`)", bool(stated.get("corpus"))),
        Item("seen", "Stated whether the model was trained on this data set (`--seen`)", stated.get("seen") in ANSWERS),
    ]  # fmt: skip


def place_of(root: Path, bundle_model: dict, dataset: str) -> Path:
    """results/<model>/<revision>/<data set>."""
    return root / bundle_model["variant"] / bundle_model["revision"] / dataset
