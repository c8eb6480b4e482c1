#!/usr/bin/env python3
"""Turn the summary of a run into report sections for MultiQC and a summary in plain words."""

import argparse
import json
from pathlib import Path

from plumbline.common.errors import run_script
from plumbline.common.threads import limit_threads


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path, required=True, help="folder that summarise_scores.py wrote")
    parser.add_argument("--experiments", type=Path, help="folder with the experiments' own files")
    parser.add_argument("--maps", type=Path, help="folder with the tables of map_cells.py")
    parser.add_argument("--catalogue", type=Path, help="assets/catalogue.csv: what to cite for public data sets")
    parser.add_argument("--outdir", type=Path, required=True, help="gets *_mqc.json, multiqc_order.json and summary.md")
    return parser.parse_args()


def report(
    summary: Path, experiments: Path | None, outdir: Path, maps: Path | None = None, citations: dict[str, str] | None = None
) -> None:
    """Write one *_mqc.json per section, their order, and summary.md. citations: data set -> what to cite for its data."""
    from plumbline.common.files import whole_file
    from plumbline.report.closing import absent_section
    from plumbline.report.costs import cost_sections
    from plumbline.report.data_section import data_section
    from plumbline.report.experiments import experiment_sections
    from plumbline.report.gains import gain_section
    from plumbline.report.gene_section import gene_section
    from plumbline.report.genes import read_genes
    from plumbline.report.layers import layer_section
    from plumbline.report.leaderboard import leaderboard_sections
    from plumbline.report.maps import map_section
    from plumbline.report.methods import methods_section
    from plumbline.report.order import section_order
    from plumbline.report.pairs import pair_section
    from plumbline.report.published import published_sections
    from plumbline.report.run import read_run
    from plumbline.report.seen import seen_section
    from plumbline.report.sentences import summary_text
    from plumbline.report.task_sections import task_sections
    from plumbline.report.verdicts import verdict_section

    run = read_run(summary)
    genes = [found for name in run.datasets if (found := read_genes(run, summary, maps, name))]
    sections = [verdict_section(run), *leaderboard_sections(run), *map_section(run, maps), *gene_section(run, genes)]
    sections += [*gain_section(run, genes), *pair_section(run, genes)]
    sections += [part for task in run.tasks for part in task_sections(run, task)]
    sections += [*layer_section(run), *experiment_sections(run, experiments)]
    sections += [
        *published_sections(run),
        *seen_section(run),
        *data_section(run),
        *cost_sections(run),
        *absent_section(run),
        methods_section(run, citations or {}),
    ]
    for part in sections:
        with whole_file(outdir / f"{part['id']}_mqc.json") as temporary:
            temporary.write_text(json.dumps(part, ensure_ascii=False, allow_nan=False))
    with whole_file(outdir / "multiqc_order.json") as temporary:
        temporary.write_text(json.dumps(section_order(sections)))
    with whole_file(outdir / "summary.md") as temporary:
        temporary.write_text(summary_text(run))


def main() -> None:
    args = arguments()
    limit_threads(1)  # a second would mostly wait busily for its turn
    from plumbline.data.catalogue import read_catalogue

    rows = read_catalogue(args.catalogue) if args.catalogue else {}
    citations = {name: row["citation"] for name, row in rows.items()}
    report(args.summary, args.experiments, args.outdir, args.maps, citations)


if __name__ == "__main__":
    run_script(main)
