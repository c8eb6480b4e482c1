#!/usr/bin/env python3
"""Verify bundles: their files and tables, and with --data their scores, by scoring the embedding again.

Exit code 0: everything is verified. 1: something differs. 2: nothing differs, but something could not be verified.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from plumbline.common.arguments import Parser, share, whole
from plumbline.common.errors import UserError, run_script


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="a bundle, or a folder with bundles below it")
    parser.add_argument(
        "--data", help="the prepared data set (results/data/NAME), or a name of the catalogue to fetch and prepare"
    )
    parser.add_argument("--counts", type=Path, help="counts.h5ad, for tasks that read expression, if it is not in --data")
    parser.add_argument("--tolerance", type=share, help="largest deviation as a share of a score's scale (default: per task)")
    parser.add_argument("--checklist", action="store_true", help="also what a submission must have")
    parser.add_argument("--threads", type=whole(1), default=os.cpu_count() or 1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def data_of(args: argparse.Namespace, seeds: list[int], folder: Path):
    """The data set of --data, prepared in ``folder`` where the catalogue has it; None without one."""
    from plumbline.benchmark.evaluation import device_of
    from plumbline.benchmark.verifying import prepared_data
    from plumbline.data.catalogue import find, read_catalogue, resolve
    from plumbline.data.fetching import fetch
    from plumbline.data.harmonise import prepare, staged
    from plumbline.data.splits import write_splits

    if args.data is None:
        return None
    path = Path(args.data)
    if not path.exists():
        row, path = find(args.data, read_catalogue()), folder / args.data
        fetch(row, folder / f"{args.data}.h5ad")
        with staged(path) as made:
            prepare(resolve({"name": args.data}, {args.data: row}), folder / f"{args.data}.h5ad", None, made)
            write_splits(made / "tables", seeds, made / "tables/splits.parquet")
    how = {"tolerance": args.tolerance, "threads": args.threads, "device": device_of(args.device)}
    return prepared_data(path, args.counts, **how)


def verify_one(folder: Path, args: argparse.Namespace, others: list) -> set[str]:
    """Print the findings of one bundle; returns their states. others: the bundles given."""
    from plumbline.benchmark.verifying import verify
    from plumbline.bundles.findings import failed, ok
    from plumbline.bundles.manifest import read_bundle
    from plumbline.bundles.submission import checklist

    bundle = read_bundle(folder)
    print(f"{folder}: {bundle}")
    with tempfile.TemporaryDirectory(prefix="plumbline_") as temporary:
        findings = verify(bundle, data_of(args, bundle.manifest["settings"]["seeds"], Path(temporary)), others)
    for item in checklist(bundle) if args.checklist else []:
        findings.append((ok if item.met else failed)(f"checklist, {item.name}", item.text))
    for finding in findings:
        advice = f". {finding.advice}." if finding.advice else ""
        print(f"  {finding.status:<13}{finding.what}: {finding.text}{advice}")
    return {finding.status for finding in findings}


def readable(folder: Path):
    """A bundle; None where its manifest is refused, which ``verify_one`` tells."""
    from plumbline.bundles.manifest import read_bundle

    try:
        return read_bundle(folder)
    except UserError:
        return None


def main() -> None:
    args = arguments()
    from plumbline.bundles.findings import FAILED, UNVERIFIED
    from plumbline.bundles.manifest import find_bundles
    from plumbline.common.threads import limit_threads

    limit_threads(args.threads)
    folders = [found for folder in args.bundles for found in find_bundles(folder) or [folder]]
    others = [bundle for bundle in map(readable, folders) if bundle is not None]
    states: set[str] = set()
    for folder in folders:
        try:
            states |= verify_one(folder, args, others)
        except UserError as error:
            print(f"  {FAILED:<13}{error}")
            states.add(FAILED)
    print("FAILED" if FAILED in states else "not everything could be verified" if UNVERIFIED in states else "verified")
    sys.exit(1 if FAILED in states else 2 if UNVERIFIED in states else 0)


if __name__ == "__main__":
    run_script(main)
