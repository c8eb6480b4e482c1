#!/usr/bin/env python3
"""Are a model's weights read right? Embeds 16 small cells with them, as a run does, and says in a minute what that shows.

  plumb weights check geneformer_v1 --weights weights
  plumb weights check transcriptformer_sapiens --weights weights --counts cells.h5ad --reference authors.npz

What is checked, one line each:
  files       sha256 of every file that is read, against models.csv (or what `plumb fetch` recorded)
  genes       share of the bundled genes, all well known, that the model's dictionary knows
  output      finite values, which differ between cells
  repeatable  the same values for cells and genes in another order and in other batches
  trained     the bundled cells are pairs of one type that share no marker gene: a trained model pairs them, its untrained
              network (embedded as well) does not, nor does one whose gene vectors are permuted
  reference   the values are those of the authors' code. No model's authors publish an output that could be bundled, so this
              needs a file of yours: --counts FILE --reference FILE, the same cells embedded by the authors' code (an npz with
              cell_id and embedding; bin/embed_external.py makes one of an h5ad, parquet or npy file)

Statuses: pass, FAIL, note (nothing to judge), recorded (a dependence that the model declares), doubt (see `trained`), n/a.
Without a reference, no check can tell a transposed square matrix in a file whose sha256 nobody published. Exits with 1 after a
FAIL.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from plumbline.common.arguments import share
from plumbline.common.errors import UserError, run_script

FILE_SETTINGS = ("checkpoint", "model_dir", "model_file", "chrom_token_offset")


def main() -> None:
    """Check the weights of one variant and print the table."""
    arguments = parser().parse_args()
    from plumbline.embedding.conformance import rules, weights
    from plumbline.embedding.variants import find_variant, read_variants

    row = find_variant(arguments.name, read_variants())
    if row.role != "foundation":
        raise UserError(f"{row.id} has no weights to check: its role is {row.role}.")
    if arguments.reference and not arguments.counts:
        raise UserError("--reference needs --counts: the file of counts whose cells the reference embeds.")
    with tempfile.TemporaryDirectory(prefix="plumbline_weights_") as folder:
        given = prepare(row, arguments, Path(folder))
        verdicts = rules.check(given.kit, weights.CHECKS, given)
    print(f"{row.id}: {row.title}\n\n{rules.as_table(verdicts)}")
    sys.exit(any(verdict.status == "FAIL" for verdict in verdicts.values()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    new = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="plumb weights"
    )
    new.add_argument("action", choices=["check"], help="what to do with the weights")
    new.add_argument("name", metavar="VARIANT", help="an id of assets/models.csv, such as geneformer_v1")
    new.add_argument("--weights", type=Path, default=Path("weights"), help="folder of weights (default: weights)")
    new.add_argument("--counts", type=Path, help="h5ad with raw counts of a few cells, in place of the bundled ones")
    new.add_argument("--reference", type=Path, help="their embedding by the authors' code (npz: cell_id, embedding)")
    new.add_argument("--layer", default="X", help="with --counts: where the counts are")
    new.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the model")
    new.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    largest = "difference to the reference that counts as equal, as a share of its largest value"
    new.add_argument("--tolerance", type=share, default=1e-3, help=f"{largest} (default: 0.001)")
    return new


def prepare(row, arguments: argparse.Namespace, folder: Path):
    """The runs of the script, which start when a check needs them."""
    from plumbline.embedding.conformance.weights import Given

    settings = row.settings | dict(pair.partition("=")[::2] for pair in arguments.set)
    sample = cells(arguments)
    script = Path(__file__).resolve().with_name(f"embed_{row.model}.py")
    kit = kit_of(script, row, settings, sample, folder / "trained", arguments)
    random = {name: value for name, value in settings.items() if name not in FILE_SETTINGS} | {"untrained": "true"}
    return Given(
        variant=row.id,
        kit=kit,
        untrained=kit_of(script, row, random, sample, folder / "untrained", arguments) if has_floor(row.model) else None,
        markers=arguments.counts is None,
        own=settings.get("checkpoint") == "own",
        reference=reference(arguments),
        tolerance=arguments.tolerance,
    )


def kit_of(script: Path, row, settings: dict[str, str], sample, folder: Path, arguments: argparse.Namespace):
    """The script with these settings; without weights if they say so."""
    from plumbline.embedding.conformance.kit import Kit

    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    files = [] if settings.get("untrained") == "true" else ["--weights", str(folder_of(row, arguments.weights))]
    told = ["--variant", row.id, "--fit-on", "none", "--seed", "42", "--device", arguments.device, *files, *pairs]
    return Kit(script, told, sample, folder)


def folder_of(row, weights: Path) -> Path:
    """--weights itself, or the model's folder in it where `plumb fetch` put the files."""
    from plumbline.embedding.checkpoints import known_checkpoints

    checkpoint = known_checkpoints().get(row.id)
    fetched = checkpoint and any((weights / row.model / file.path).exists() for file in checkpoint.files)
    place = weights / row.model if fetched else weights
    if not place.exists():
        fetch = f"./plumb fetch {row.id} --output {weights}" if checkpoint else "its authors' files"
        raise UserError(f"--weights {weights}: no such folder. Fetch the files ({fetch}), or say where they are.")
    return place.resolve()


def cells(arguments: argparse.Namespace):
    """The bundled cells, or all of --counts."""
    from plumbline.embedding.conformance.marker_cells import marker_cells

    if arguments.counts is None:
        return marker_cells()
    import numpy as np
    import scipy.sparse as sp

    from plumbline.counts.reading import open_counts
    from plumbline.embedding.conformance.cells import Sample

    counts = open_counts(arguments.counts, arguments.layer)
    x = sp.vstack([block for _, block in counts.blocks(np.arange(len(counts.cell_id)))], format="csr")
    return Sample(counts.cell_id, x, counts.ensembl_id, counts.symbol)


def reference(arguments: argparse.Namespace):
    """The embedding to compare with, or None."""
    from plumbline.embedding.contract import read_embedding

    return read_embedding(arguments.reference) if arguments.reference else None


def has_floor(model: str) -> bool:
    """Whether the model has an untrained network."""
    from plumbline.embedding.variants import read_variants

    return any(row.model == model and row.settings.get("untrained") == "true" for row in read_variants().values())


if __name__ == "__main__":
    run_script(main)
