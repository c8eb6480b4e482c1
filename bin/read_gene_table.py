#!/usr/bin/env python3
"""Write the gene embeddings that a model's checkpoint holds: symbols and vectors."""

import argparse
import sys
from pathlib import Path

from plumbline.common.arguments import Parser
from plumbline.common.errors import NotApplicable, UserError, run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True, help="a model of assets/models.csv, such as scgpt")
    parser.add_argument("--variant", required=True, help="a row of assets/models.csv")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the authors' checkpoint files")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting that names files")
    parser.add_argument("--output", type=Path, required=True, help="VARIANT.npz: arrays gene and vector, as for gene_vectors")
    return parser.parse_args()


def settings_of(pairs: list[str]) -> dict[str, str]:
    """The --set pairs. Raises UserError for one without a value."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise UserError(f"--set {wrong[0]}: expected KEY=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def main() -> None:
    args = arguments()
    limit_threads(1)
    import numpy as np

    from plumbline.common.files import whole_file
    from plumbline.embedding.options import Options
    from plumbline.models.gene_tables import read_gene_table

    options = Options(
        variant=args.variant,
        weights=args.weights,
        tables=None,
        fit_on="none",
        seed=0,
        device="cpu",
        batch_size=0,
        threads=1,
        settings=settings_of(args.set),
    )
    try:
        table = read_gene_table(args.model, options)
    except NotApplicable as reason:
        print(f"not applicable: {reason}", file=sys.stderr)
        return
    with whole_file(args.output) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, gene=table.names.astype(str), vector=table.vectors.astype(np.float32), kind=table.kind)


if __name__ == "__main__":
    run_script(main)
