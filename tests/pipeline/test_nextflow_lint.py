"""Strict syntax: every script and config is clean under the linter of Nextflow's own language library, and formatted by it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = ["main.nf", "nextflow.config", "conf", "modules", "subworkflows", "tests"]


@pytest.mark.pipeline
def test_no_errors_no_warnings_and_formatted():
    jar = os.environ.get("PLUMBLINE_NEXTFLOW_JAR")
    if not jar or not Path(jar).exists():
        pytest.skip("needs Nextflow's jar: run ./plumb test")
    java_home = os.environ.get("NXF_JAVA_HOME") or os.environ.get("JAVA_HOME")
    java = f"{java_home}/bin/java" if java_home else shutil.which("java")
    options = ["-cp", jar, "groovy.ui.GroovyMain", "tests/nf_lint.groovy", "-strict", "-check"]
    run = subprocess.run([java, *options, *PATHS], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
