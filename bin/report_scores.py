#!/usr/bin/env python3
"""Turn the summary of a run into report sections for MultiQC and a summary in plain words."""

import argparse
import json
from pathlib import Path

from plumbline.common.errors import run_script


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", type=Path, required=True, help="folder that summarise_scores.py wrote")
    parser.add_argument("--experiments", type=Path, help="folder with the experiments' own files")
    parser.add_argument("--outdir", type=Path, required=True, help="gets *_mqc.json, multiqc_order.json and summary.md")
    return parser.parse_args()


def report(summary: Path, experiments: Path | None, outdir: Path) -> None:
    """Write one *_mqc.json per section, their order, and summary.md."""
    from plumbline.common.files import whole_file
    from plumbline.report.closing import absent_section, methods_section
    from plumbline.report.costs import cost_sections
    from plumbline.report.data_section import data_section
    from plumbline.report.experiments import experiment_sections
    from plumbline.report.leaderboard import leaderboard_sections
    from plumbline.report.order import section_order
    from plumbline.report.published import published_sections
    from plumbline.report.run import read_run
    from plumbline.report.seen import seen_section
    from plumbline.report.sentences import summary_text
    from plumbline.report.task_sections import task_sections
    from plumbline.report.verdicts import verdict_section

    run = read_run(summary)
    sections = [verdict_section(run), *leaderboard_sections(run)]
    sections += [part for task in run.tasks for part in task_sections(run, task)]
    sections += experiment_sections(run, experiments)
    sections += [
        *published_sections(run),
        *seen_section(run),
        *data_section(run),
        *cost_sections(run),
        *absent_section(run),
        methods_section(run),
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
    report(args.summary, args.experiments, args.outdir)


if __name__ == "__main__":
    run_script(main)
