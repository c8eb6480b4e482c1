#!/usr/bin/env python3
"""Try a model's embedding script on small files of counts: order of cells and of genes, determinism, batches, shards,
duplicates, unknown genes, empty cells, one cell, NaN, memory, and the output contract. Prints a table; exits with 1 if a check
fails.

  check_model.py pca
  check_model.py uce_4l --weights weights/uce
  check_model.py mine --script my_embed.py --weights my_weights --set layer=3
"""

import argparse
import sys
import tempfile
from pathlib import Path

from plumbline.common.arguments import share
from plumbline.common.errors import UserError, run_script


def main() -> None:
    """Check one model and print its table."""
    from plumbline.embedding.conformance import kit as conformance_kit
    from plumbline.embedding.conformance import rules as conformance

    arguments = parser().parse_args()
    script, fit_on, settings = describe(arguments)
    with tempfile.TemporaryDirectory(prefix="plumbline_check_") as folder:
        kit = conformance_kit.Kit(
            script,
            command(arguments, fit_on, settings),
            cells(arguments.counts),
            Path(folder),
            fitted=fit_on != "none",
            tolerance=arguments.tolerance,
            memory_cells=arguments.memory_cells,
        )
        verdicts = conformance.check(kit)
    print(f"{arguments.name} ({script.name})\n\n{conformance.as_table(verdicts)}")
    sys.exit(any(verdict.status == "FAIL" for verdict in verdicts.values()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    new = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    new.add_argument("name", help="an id of assets/models.csv; any name with --script")
    new.add_argument("--script", type=Path, help="an embedding script of your own, with the arguments of bin/embed_*.py")
    new.add_argument("--weights", type=Path, help="the model's weights")
    new.add_argument("--counts", type=Path, help="h5ad whose first 16 cells are used (default: generated human counts)")
    new.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the model")
    new.add_argument(
        "--fit-on", choices=("none", "train", "all"), help="for --script: what the model is fitted on (default: none)"
    )
    new.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    new.add_argument("--tolerance", type=share, default=1e-4, help="largest relative difference that counts as equal")
    new.add_argument("--memory-cells", type=int, default=512, help="cells of the memory check, and 4 times as many; 0: skip it")
    return new


def describe(arguments: argparse.Namespace) -> tuple[Path, str, list[str]]:
    """(script, fit_on, settings): of the table of models, or as given with --script."""
    from plumbline.embedding.variants import find_variant, read_variants

    if arguments.script:
        if not arguments.script.is_file():
            raise UserError(f"--script {arguments.script}: no such file.")
        return arguments.script, arguments.fit_on or "none", arguments.set
    row = find_variant(arguments.name, read_variants())
    given = [pair.partition("=")[0] for pair in arguments.set]
    settings = [f"{name}={value}" for name, value in row.settings.items() if name not in given]
    return Path(__file__).resolve().with_name(f"embed_{row.model}.py"), row.fit_on, [*settings, *arguments.set]


def command(arguments: argparse.Namespace, fit_on: str, settings: list[str]) -> list[str]:
    """Arguments of every run of the script, besides its files."""
    weights = ["--weights", str(arguments.weights.resolve())] if arguments.weights else []
    pairs = [part for pair in settings for part in ("--set", pair)]
    return ["--variant", arguments.name, "--fit-on", fit_on, "--seed", "42", "--device", arguments.device, *weights, *pairs]


def cells(counts: Path | None):
    """The cells to try."""
    from plumbline.embedding.conformance.cells import first_cells, generated

    return first_cells(counts) if counts else generated()


if __name__ == "__main__":
    run_script(main)
