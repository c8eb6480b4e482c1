"""Which files of a weights folder make up one Geneformer: the folder of its config.json and the dictionaries that fit it."""

from dataclasses import dataclass
from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint, known_checkpoints
from plumbline.embedding.options import Options
from plumbline.embedding.weights import load_dictionary, verify
from plumbline.models.geneformer.network import Architecture, read_config, tensor_file
from plumbline.models.geneformer.tokens import Dictionaries, load_dictionaries

GENERATIONS = ("v1", "v2")


@dataclass(frozen=True)
class GeneformerFiles:
    """folder: holds config.json and the tensors. shape: what config.json says. dictionaries: those of its vocabulary."""

    folder: Path
    shape: Architecture
    dictionaries: Dictionaries
    variant: str

    def facts(self, options: Options) -> dict:
        """Checkpoint and hashes, for the provenance."""
        own = options.settings.get("checkpoint") == "own"
        files = (tensor_file(self.folder, self.variant), *self.dictionaries.files)
        facts = [verify(file, self.variant, own) for file in files]
        return {"checkpoint": self.folder.name, "checkpoint_sha256": facts[0]["sha256"], "weights": facts}


def find_files(options: Options) -> GeneformerFiles:
    """The model that ``options`` mean below --weights: the folder model_dir names; else the one models.csv names for the
    variant; else the only one of the variant's generation (V1 or V2). --weights may also be the model folder itself.
    """
    if options.weights is None:
        raise UserError(f"{options.variant} needs --weights. {fetch_hint(options.variant)}")
    if not options.weights.is_dir():
        raise UserError(f"--weights {options.weights} is not a folder. {fetch_hint(options.variant)}")
    root, variant = options.weights.resolve(), options.variant
    if any((root / "geneformer").glob("*/config.json")):  # the folder that holds every fetched model
        root = root / "geneformer"
    folder = _named(root, options) or _only(root, variant)
    shape = read_config(folder, variant)
    token_file = _token_file(folder, root, shape.vocabulary, variant)
    return GeneformerFiles(folder, shape, load_dictionaries(token_file, variant), variant)


def _named(root: Path, options: Options) -> Path | None:
    if "model_dir" in options.settings:
        return root / options.settings["model_dir"]
    checkpoint = known_checkpoints().get(options.variant)
    files = checkpoint.files if checkpoint else ()
    folders = {(root / file.path).parent for file in files if Path(file.path).name == "config.json"}
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _only(root: Path, variant: str) -> Path:
    folders = [file.parent for file in (root / "config.json", *sorted(root.glob("*/config.json"))) if file.is_file()]
    generation = next((name for name in GENERATIONS if f"_{name}" in variant), None)
    fitting = [folder for folder in folders if generation in (None, _generation(folder, root, variant))]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(folder.name for folder in folders) or "no folder with a config.json"
    what = f"a {generation.upper()} model" if generation else "one model"
    raise UserError(
        f"{root} does not hold exactly {what}; found {found}. Say which: --set model_dir=NAME. {fetch_hint(variant)}"
    )


def _generation(folder: Path, root: Path, variant: str) -> str:
    return _generation_of(load_dictionary(_token_file(folder, root, read_config(folder, variant).vocabulary, variant), variant))


def _generation_of(token: dict) -> str:
    return "v2" if "<cls>" in token else "v1"


def _token_file(folder: Path, root: Path, vocabulary: int, variant: str) -> Path:
    """The token dictionary with as many entries as the model has word embeddings: inside, below or beside its folder.

    Raises UserError if there is none, or if two of one place fit and neither is of the generation that a name tells.
    """
    places = (folder, root, folder.parent)
    files = [file for place in places for file in _token_files(place)]
    for place in places:
        tokens = {file: load_dictionary(file, variant) for file in _token_files(place)}
        fitting = {file: token for file, token in tokens.items() if len(token) == vocabulary}
        if fitting:
            return _one_of(fitting, folder, variant)
    have = f"found {', '.join(sorted({file.name for file in files}))}" if files else "found none"
    raise UserError(
        f"No token dictionary of {vocabulary} entries lies in, below or beside {folder} ({have}). {fetch_hint(variant)}"
    )


def _one_of(fitting: dict[Path, dict], folder: Path, variant: str) -> Path:
    """The first of dictionaries that are one; of several, that of the generation in the folder's name, else the variant's."""
    told = [name for name in GENERATIONS if name in folder.name.lower()]
    told = told or [name for name in GENERATIONS if f"_{name}" in variant]
    if len(told) == 1:
        fitting = {file: token for file, token in fitting.items() if _generation_of(token) == told[0]} or fitting
    first, *others = fitting
    different = [file for file in others if fitting[file] != fitting[first]]
    if different:
        raise UserError(
            f"{first} and {different[0]} both fit {folder.name} by their size and differ. Put the one it was trained with, and "
            f"its two companions, into the model's folder. {fetch_hint(variant)}"
        )
    return first


def _token_files(place: Path) -> list[Path]:
    folders = (place, place / "geneformer", place / "geneformer" / "gene_dictionaries_30m", place / "gene_dictionaries_30m")
    return [file for folder in folders for file in sorted(folder.glob("token_dictionary*.pkl"))]
