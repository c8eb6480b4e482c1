#!/usr/bin/env python3
"""Fetch a data set by its name in the catalogue, or by URL, to one file; print its sha256."""

from pathlib import Path
from urllib.parse import urlsplit

from plumbline.common.arguments import Parser
from plumbline.common.errors import run_script


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("name", help="name in the catalogue, or an http(s) URL")
    parser.add_argument("--output", type=Path, help="file to write (default: NAME.h5ad here)")
    parser.add_argument("--catalogue", type=Path, help="default: assets/catalogue.csv")
    parser.add_argument("--sha256", help="expected sha256 of what a URL holds")
    arguments = parser.parse_args()
    from plumbline.common.download import digest, download
    from plumbline.data.catalogue import CATALOGUE, find, read_catalogue
    from plumbline.data.fetching import fetch
    from plumbline.embedding.checkpoints import known_checkpoints

    is_url = "://" in arguments.name
    output = arguments.output or Path(Path(urlsplit(arguments.name).path).name if is_url else f"{arguments.name}.h5ad")
    if is_url:
        download(arguments.name, output, arguments.sha256)
    else:
        row = find(arguments.name, read_catalogue(arguments.catalogue or CATALOGUE), (*known_checkpoints(),))
        print(f"{row['title']}. Licence: {row['licence']}. Cite: {row['citation']}.")
        fetch(row, output)
    print(f"sha256 {digest(output, 'sha256')}  {output}")


if __name__ == "__main__":
    run_script(main)
