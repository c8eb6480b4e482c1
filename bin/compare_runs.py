#!/usr/bin/env python3
"""Compare two runs: what differs in data, code, protocol and seeds, and which scores differ by more than noise.

A and B are output folders of runs, bundles, or folders of bundles. Scores of one model on one data set are paired unit by unit;
where each side has a single model, that is compared with the other. Differences are B less A, with 95 % intervals.
"""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser, whole
from plumbline.common.errors import UserError, run_script

SHOWN = 40


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--output", type=Path, help="TSV file for every row; the terminal shows the strongest")
    parser.add_argument("--n-boot", type=whole(1, 1_000_000), default=1000, help="bootstrap resamples")
    return parser.parse_args()


def compare(args: argparse.Namespace) -> tuple[dict, object]:
    """{(what, in A, in B): the models and data sets it is true of}, and the table of scores."""
    import pandas as pd

    from plumbline.bundles.comparing import changes, compare_entries, entries_of, judged, pairs_of

    sides = [entries_of(folder) for folder in (args.a, args.b)]
    pairs = pairs_of(*sides)
    if not pairs:
        raise UserError(f"{args.a} and {args.b} have no model on a data set in common.")
    changed: dict[tuple[str, str, str], list[str]] = {}
    tables = []
    for one, other in pairs:
        a, b = sides[0][one](), sides[1][other]()
        for change in changes(a.manifest, b.manifest):
            changed.setdefault(change, []).append(f"{one[1]} on {one[0]}")
        tables.append(compare_entries(a, b, args.n_boot))
    print(f"{len(pairs)} combinations of model and data set are in both")
    for place, name in enumerate("AB"):
        for dataset, variant in sorted(set(sides[place]) - {pair[place] for pair in pairs}):
            print(f"  only in {name}: {variant} on {dataset}")
    return changed, judged(pd.concat(tables, ignore_index=True))


def show_changes(changed: dict, n_pairs: int) -> None:
    from plumbline.report.words import listed

    print("\nWhat was changed (A -> B)" if changed else "\nNo difference in data, code, protocol, seeds and embeddings")
    for (what, a, b), where in changed.items():
        of = "all" if len(where) == n_pairs else listed(where, 3)
        print(f"  {what}: {a} -> {b}  ({of})")


def show_scores(table) -> None:
    counts = table["evidence"].value_counts()
    print(f"\n{len(table)} scores: " + ", ".join(f"{counts[name]} {name}" for name in dict.fromkeys(table["evidence"])))
    shown = table[table["evidence"] != "identical"]
    for row in shown.head(SHOWN).itertuples():
        where = f"{row.variant} on {row.dataset}, {row.metric} ({row.protocol})"
        gap = f"{row.a:.4g} -> {row.b:.4g}, {row.difference:+.4g} [{row.low:.4g}, {row.high:.4g}], q {row.q:.2g}"
        tested = row.evidence in ("changed", "within noise")
        print(f"  {row.evidence:<15}{where}: {gap if tested else f'{row.a:.4g} -> {row.b:.4g} {row.note}'}")
    if len(shown) > SHOWN:
        print(f"  ... and {len(shown) - SHOWN} more: --output FILE.tsv")


def main() -> None:
    args = arguments()
    from plumbline.common.files import whole_file

    changed, table = compare(args)
    show_changes(changed, len(table[["dataset", "variant"]].drop_duplicates()))
    show_scores(table)
    if args.output:
        with whole_file(args.output) as temporary:
            table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")
        print(f"\nall rows: {args.output}")


if __name__ == "__main__":
    run_script(main)
