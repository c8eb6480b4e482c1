#!/usr/bin/env python3
"""Write the results of a run as bundles, RESULTS/<model>/<revision>/<data set>: scores, items, embedding, provenance, manifest.

RUN is the output folder of a run, or a bundle that Result.save wrote from Python. What is not known of a model is stated with
the options below; the closing checklist names what a submission still lacks.
"""

import argparse
from pathlib import Path

from plumbline.common.arguments import Parser
from plumbline.common.errors import UserError, run_script


def arguments() -> argparse.Namespace:
    from plumbline.bundles.submission import STATED
    from plumbline.embedding.contamination import ANSWERS

    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of bundles (default: results)")
    parser.add_argument("--models", default="", help="variants, separated by commas (default: all)")
    parser.add_argument("--datasets", default="", help="data sets, separated by commas (default: all)")
    parser.add_argument("--revision", default="", help="of the model (default: that of its weights, or of plumbline)")
    parser.add_argument("--small", action="store_true", help="without the embedding: to be compared with, not to be verified")
    for name, text in STATED.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default="", help=text, choices=ANSWERS if name == "seen" else None)
    return parser.parse_args()


def stated(args: argparse.Namespace) -> dict[str, str]:
    """What the submitter states of the model."""
    from plumbline.bundles.submission import STATED

    return {name: getattr(args, name) for name in STATED if getattr(args, name)}


def submit(args: argparse.Namespace) -> list[Path]:
    """Write the bundles; returns their folders. Raises UserError if one model's licence would be stated of several."""
    from plumbline.bundles.manifest import MANIFEST
    from plumbline.bundles.moving import submit_saved
    from plumbline.bundles.runs import contents_of, read_output
    from plumbline.bundles.submission import place_of
    from plumbline.bundles.writing import write_bundle

    given = stated(args)
    if (args.run / MANIFEST).is_file():
        return [submit_saved(args.run, args.output, args.revision, given)]
    run = read_output(args.run)
    if args.output.resolve() == args.run.resolve():
        raise UserError(f"{args.output} is the output folder of the run itself. Name another one: --output bundles.")
    pairs = run.chosen(args.datasets, args.models)
    if (given or args.revision) and len({variant for _, variant in pairs}) > 1:
        raise UserError("--revision, --code and whatever else is stated of a model need one model: add --models NAME.")
    contents = [contents_of(run, dataset, variant, args.revision, given) for dataset, variant in pairs]
    return [write_bundle(place_of(args.output, part.model, part.dataset["name"]), part, args.small) for part in contents]


def main() -> None:
    args = arguments()
    from plumbline.bundles.manifest import read_bundle
    from plumbline.bundles.submission import checklist

    for folder in submit(args):
        bundle = read_bundle(folder)
        lacking = [item.text for item in checklist(bundle) if not item.met]
        print(f"{folder}: {bundle}")
        for text in lacking:
            print(f"  for a submission: {text}")


if __name__ == "__main__":
    run_script(main)
