#!/usr/bin/env python3
"""Make one web page of many bundles: searchable, sortable, filterable, with permalinks and exports; it needs no network."""

from pathlib import Path

from plumbline.common.arguments import Parser
from plumbline.common.errors import run_script


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="bundles, or folders with bundles below them")
    parser.add_argument("--output", type=Path, default=Path("leaderboard.html"), help="the page (default: leaderboard.html)")
    parser.add_argument("--title", default="plumbline leaderboard")
    args = parser.parse_args()
    from plumbline.bundles.board import read_board
    from plumbline.bundles.site import page
    from plumbline.common.files import whole_file

    board = read_board(args.folders)
    with whole_file(args.output) as temporary:
        temporary.write_text(page(board, args.title), encoding="utf-8")
    print(f"{len(board.submissions)} bundles, {len(board.scores)} rows: {args.output}")
    for path, why in board.left_out:
        print(f"  left out: {path}: {why}")


if __name__ == "__main__":
    run_script(main)
