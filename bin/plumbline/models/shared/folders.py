"""The folder of weights, and where in it a model lies whose files are a folder of their own."""

from pathlib import Path

from plumbline.common.errors import UserError
from plumbline.embedding.checkpoints import fetch_hint
from plumbline.embedding.options import Options


def weights_root(weights: Path | None, variant: str) -> Path:
    """The folder of --weights, resolved. Raises UserError, with the command that fetches the variant, if there is none."""
    if weights is None or not weights.is_dir():
        raise UserError(f"{variant} needs --weights FOLDER (given: {weights}). {fetch_hint(variant)}")
    return weights.resolve()


def find_model(options: Options, model: str, marker: str, released: dict[str, str]) -> Path:
    """The folder that holds ``marker``: --weights itself, its subfolder ``model_dir``, the variant's, or its only one.

    model: the subfolder of --weights that `plumb fetch` writes to. released: variant -> name of its folder.
    Raises UserError, with the folders there are, if that is none or several.
    """
    variant = options.variant
    root = weights_root(options.weights, variant)
    if (root / model).is_dir():  # the folder that holds every fetched model
        root = root / model
    if "model_dir" in options.settings:
        return root / options.settings["model_dir"]
    if (root / marker).is_file():
        return root
    found = sorted(file.parent.name for file in root.glob(f"*/{marker}"))
    if released.get(variant) in found:
        return root / released[variant]
    if len(found) == 1:
        return root / found[0]
    raise UserError(
        f"{root} does not hold exactly one such model ({marker} in: {', '.join(found) or 'no folder'}). Say which: "
        f"--set model_dir=NAME. {fetch_hint(variant)}"
    )
