"""Container engines and a cluster, for real. Root on Debian (CI) sets them up; elsewhere those that answer are used."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from pipeline.conftest import ROOT, Run, environment_python, plumb_run, simulate, tiny_screen, tiny_sheet

__all__ = ["environment_python", "simulate", "tiny_screen", "tiny_sheet"]  # fixtures
SETUP = ROOT / "tests" / "engines" / "setup"
HOME = Path(os.environ.get("PLUMBLINE_ENGINES_DIR", "/var/tmp/plumbline-engines"))
SMALL_RUN = ["--models", "pca,random", "--tasks", "consistency,recall", "--seeds", "42", "--n_draws", 50, "--n_boot", 50]
# what only the machines of CI need, and nobody else
SITE = {
    "podman": "",
    "docker": "",
    "charliecloud": "charliecloud.writeFake = false\n",  # Debian's 0.31 has no --write-fake
    "singularity": "",
    "slurm": "executor { queueSize = 10; pollInterval = '2 sec'; queueStatInterval = '3 sec' }\n",  # seconds, not minutes
}
# an engine, an executor, or a container engine in the jobs of a cluster
CASES = [*SITE, *(f"{engine}+slurm" for engine in SITE if engine != "slurm")]
IMAGES = ("base", "multiqc")
STOP = {"docker", "slurm", "charliecloud", "singularity"}


@dataclass(frozen=True)
class Engine:
    """An engine that is ready (or two, such as podman+slurm): how to run the small run under it."""

    name: str
    config: Path

    @property
    def profile(self) -> str:
        """What follows -profile."""
        return ",".join(["test", *self.name.split("+")])

    @property
    def containers(self) -> str:
        """The container engine, if there is one."""
        return self.name.partition("+")[0].replace("slurm", "")

    def run(self, folder: Path, sheet: Path, *arguments: object) -> Run:
        """The small run of the pipeline under this engine, in ``folder``."""
        return plumb_run(folder, "--input", sheet, *SMALL_RUN, "-profile", self.profile, "-c", self.config, *arguments)


@pytest.fixture(scope="session")
def ready():
    """A function that starts an engine (once); a test of an engine that `./plumb test --engines` does not name is skipped."""
    started: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def make(name: str) -> None:
            if name not in os.environ.get("PLUMBLINE_ENGINES", "").split(","):
                pytest.skip(f"not asked for: ./plumb test --engines {name}")
            for part in name.split("+"):
                if part not in started:
                    start(part, patch)
                    started.append(part)

        yield make
        for name in STOP & set(started) if os.geteuid() == 0 else ():
            subprocess.run([SETUP / name, "stop"], check=True)


@pytest.fixture(scope="session", params=CASES)
def engine(request: pytest.FixtureRequest, ready, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Each engine in turn, with images built from our Dockerfile."""
    ready(request.param)
    config = tmp_path_factory.mktemp(request.param) / "site.config"
    config.write_text("".join(SITE[part] for part in request.param.split("+")))
    return Engine(request.param, config)


def start(name: str, patch: pytest.MonkeyPatch) -> None:
    """Install and start an engine (as root), take over its environment variables, and build the images for it."""
    without_build = name in ("charliecloud", "singularity")
    if without_build:
        start("podman", patch)  # which builds its images
    if os.geteuid() == 0:
        subprocess.run([SETUP / name, *(images() if without_build else [])], check=True)
        shown = subprocess.run(["bash", "-c", f". {HOME}/{name}/env.sh; env -0"], capture_output=True, text=True, check=True)
        for variable in filter(None, shown.stdout.split("\0")):
            patch.setenv(*variable.split("=", 1))
    if name in ("podman", "docker"):
        # --network host: the engines of CI have no network of their own
        options = {"ENGINE": name, "BUILD_OPTIONS": "--network host"}
        subprocess.run([ROOT / "containers" / "build", *IMAGES], env=os.environ | options, check=True)


def images() -> list[str]:
    """The names of the images, as the pipeline asks for them."""
    from plumbline import __version__

    return [f"ghcr.io/plumbline/plumbline-{name}:{__version__}" for name in IMAGES]
