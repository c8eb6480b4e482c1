#!/usr/bin/env python3
"""Fetch the checkpoints of foundation models, by their ids in assets/models.csv, to a folder of weights.

Files keep the layout of their source, DIR/<model>/<path>, so that --weights DIR serves every model, and DIR, put on a web
server, serves as --mirror. Cut transfers go on where they stopped; what is known of size and sha256 is verified,
and a sha256 that nobody published is recorded on the first fetch (SHA256SUMS). Weights for non-commercial use are fetched
after --accept-licence alone.
"""

import argparse
import sys
from pathlib import Path

from plumbline.common.errors import UserError, run_script
from plumbline.embedding.checkpoints import Checkpoint, known_checkpoint
from plumbline.embedding.recorded import SUMS, record

MARK = ".unpacked"  # beside an archive whose content has been unpacked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="ids of foundation models, such as geneformer_v1")
    parser.add_argument("--output", type=Path, default=Path("weights"), help="the folder of weights (default: weights)")
    parser.add_argument("--mirror", help="URL of a copy of such a folder, in place of the authors' sources")
    parser.add_argument(
        "--recipe", action="store_true", help="fetch nothing: print the commands for a machine with network access"
    )
    parser.add_argument("--accept-licence", action="store_true", help="I accept the licences that exclude commercial use")
    arguments = parser.parse_args()
    checkpoints = [known_checkpoint(name) for name in arguments.names]
    if not arguments.recipe:
        require_accepted(checkpoints, arguments.accept_licence)
    for checkpoint in checkpoints:
        if arguments.recipe:
            print(recipe(checkpoint, arguments.output, arguments.mirror))
        else:
            fetch(checkpoint, arguments.output, arguments.mirror)


def require_accepted(checkpoints: list[Checkpoint], accepted: bool) -> None:
    """Show each licence. Raises UserError, before anything is fetched, if one excludes commercial use and is not accepted."""
    for checkpoint in checkpoints:
        print(f"{checkpoint.variant}: licence of the weights: {checkpoint.licence or 'not known'}", file=sys.stderr)
    restricted = [checkpoint for checkpoint in checkpoints if checkpoint.restricted]
    if restricted and not accepted:
        names = ", ".join(checkpoint.variant for checkpoint in restricted)
        raise UserError(
            f"The weights of {names} are not for commercial use ({restricted[0].licence}; {restricted[0].source}). Read the "
            "licence at the source; if you accept it, give the same command with --accept-licence."
        )


def fetch(checkpoint: Checkpoint, output: Path, mirror: str | None, pause: float = 2.0) -> None:
    """Fetch and verify every file of a checkpoint; on failure say how to bring them without network access.

    Files that are already there are verified and kept. A source only a browser can open is an error while files are missing.
    """
    from plumbline.common.download import download, verify

    try:
        for file, url, path in wanted(checkpoint, output, mirror):
            if checkpoint.manual and not mirror:
                if not path.exists():
                    raise UserError(f"{path} is missing, and {checkpoint.source} can only be opened in a browser.")
                verify(path, url, sha256=file.sha256 or None, size=file.size or None)
            else:
                download(url, path, sha256=file.sha256 or None, size=file.size or None, pause=pause)
            if not file.sha256:
                record(output / checkpoint.folder, path)
            told = "sha256 verified" if file.sha256 else f"sha256 not published: recorded in {SUMS}"
            print(f"{path}  {told}", file=sys.stderr)
            unpack(path)
    except UserError as error:
        raise UserError(f"{error}\n{recipe(checkpoint, output, mirror)}") from error


def wanted(checkpoint: Checkpoint, output: Path, mirror: str | None) -> list[tuple]:
    """(file, its URL, its place) for each file of a checkpoint."""
    folder = output / checkpoint.folder
    base = mirror.rstrip("/") if mirror else None
    return [
        (file, f"{base}/{checkpoint.folder}/{file.path}" if base else file.url, folder / file.path) for file in checkpoint.files
    ]


def recipe(checkpoint: Checkpoint, output: Path, mirror: str | None) -> str:
    """Commands that bring the files from a machine with network access, and verify them."""
    files = wanted(checkpoint, output, mirror)
    accept = " --accept-licence" if checkpoint.restricted else ""
    if checkpoint.manual and not mirror:
        lines = [f"# Open {checkpoint.source} in a browser and save:"]
        lines += [f"#   {Path(file.path).name} as {path}" for file, _, path in files]
    else:
        lines = [f"# On a machine with network access (then copy {output / checkpoint.folder} to the same place here):"]
        lines += [f"mkdir -p '{folder}'" for folder in sorted({path.parent for _, _, path in files})]
        lines += [f"curl --fail --location --continue-at - --output '{path}' '{url}'" for _, url, path in files]
    sums = [f"{file.sha256}  {path}" for file, _, path in files if file.sha256]
    lines += [f"echo '{line}' | sha256sum --check" for line in sums]
    lines += [f"# Then verify (and unpack) with: ./plumb fetch {checkpoint.variant} --output {output}{accept}"]
    if accept:
        lines.insert(0, f"# Licence of the weights: {checkpoint.licence} ({checkpoint.source})")
    return "\n".join(lines)


def unpack(path: Path) -> None:
    """Unpack a .tar.gz beside itself, once. Members that would leave the folder are refused."""
    mark = path.with_name(path.name + MARK)
    if not path.name.endswith(".tar.gz") or mark.exists():
        return
    import tarfile

    try:
        with tarfile.open(path) as archive:
            archive.extractall(path.parent, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} cannot be unpacked ({error}). Remove it and fetch it again.") from error
    mark.touch()


if __name__ == "__main__":
    run_script(main)
