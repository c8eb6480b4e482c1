"""fetch_jars.py NEXTFLOW.LOCK FOLDER: the jars of a lock from Maven Central; run by the Python that has jgo, a Maven client."""

import shutil
import sys
from pathlib import Path

from jgo.maven import MavenContext, PythonResolver


def main(lock: Path, folder: Path) -> None:
    """Each line of the lock ends with group/artifact/version/file.jar; the file goes into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    maven = MavenContext(repo_cache=folder / "maven", resolver=PythonResolver(), timeout=60)
    for line in lock.read_text().splitlines():
        *group, artifact, version, name = line.split()[1].split("/")
        classifier = name.removeprefix(f"{artifact}-{version}").removesuffix(".jar").lstrip("-")
        jar = maven.project(".".join(group), artifact).at_version(version).artifact(classifier=classifier)
        shutil.move(jar.resolve(), folder / name)
    shutil.rmtree(folder / "maven")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
