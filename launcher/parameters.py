"""The words of a command line, and what the parameters of a run will be: Nextflow says what profiles resolve to."""

import json
import os
import re
from functools import cached_property
from pathlib import Path

from launcher.home import REPO, command
from launcher.nextflow import Nextflow
from plumbline.common.errors import UserError

ENGINES = tuple(sorted(path.stem for path in (REPO / "conf/engines").glob("*.config") if path.stem != "uv"))


def value(arguments: list[str], option: str) -> str | None:
    """The value of an option, given as `-o value` or `-o=value`; the last one counts."""
    return next(reversed(values(arguments, option)), None)


def values(arguments: list[str], option: str) -> list[str]:
    """Every value of an option that may be repeated."""
    found = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == option:
            found.append(following)
        elif word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
    return found


def without(arguments: list[str], option: str) -> list[str]:
    """The arguments less an option and its value."""
    kept, skip = [], False
    for word in arguments:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option
    return kept


class Parameters:
    """The parameters of a run: command line, then -params-file, then Nextflow's configuration, which is read only if needed."""

    def __init__(self, program: Nextflow, arguments: list[str], profiles: list[str]) -> None:
        self.program, self.arguments, self.profiles = program, arguments, profiles

    def get(self, name: str) -> str | None:
        """The value of a parameter; None where it is null or unknown."""
        given = value(self.arguments, f"--{name}")
        if given is not None:
            return given
        return self.in_file[name] if name in self.in_file else self.configured.get(f"params.{name}")

    def engine(self) -> bool:
        """Whether a container engine runs the tasks: named as a profile, or enabled by a profile or a file of -c."""
        if set(self.profiles) & set(ENGINES):
            return True
        if "uv" in self.profiles or value(self.arguments, "--env_dir") is not None:
            return False
        return any(self.configured.get(f"{name}.enabled") == "true" for name in ENGINES)

    @cached_property
    def configured(self) -> dict[str, str | None]:
        """`nextflow config -flat`: setting -> value."""
        files = [word for path in values(self.arguments, "-c") + values(self.arguments, "-config") for word in ("-c", path)]
        profile = ["-profile", ",".join(self.profiles)] if self.profiles else []
        log = ["-log", os.devnull]
        words = [self.program.command, *log, *files, "config", "-flat", *profile, REPO]
        shown = command(words, "Check -profile, and the files of -c.", **self.program.environment)
        pairs = (line.split(" = ", 1) for line in shown.splitlines() if " = " in line)
        return {name: None if text == "null" else text.strip("'\"") for name, text in pairs}

    @cached_property
    def in_file(self) -> dict[str, str | None]:
        """The file of -params-file: JSON, or YAML with a line per parameter."""
        path = value(self.arguments, "-params-file")
        if path is None or not Path(path).is_file():
            return {}  # Nextflow says so
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if path.endswith(".json"):
            try:
                return {name: None if given is None else str(given) for name, given in json.loads(text).items()}
            except (ValueError, AttributeError) as error:
                raise UserError(f'{path} is not a JSON file of parameters, such as {{"seeds": "42"}}: {error}') from error
        pairs = re.findall(r"""^["']?(\w+)["']?\s*:\s*["']?([^"'\n#]*)""", text, re.MULTILINE)
        return {name: given.strip() if given.strip() not in ("null", "~", "") else None for name, given in pairs}
