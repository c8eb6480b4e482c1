#!/usr/bin/env python3
"""Floors, ceilings and predictors: bin/plumbline/models/control.py."""

from plumbline.counts import Counts
from plumbline.embedding_cli import Options, Result, run


def embed(counts: Counts, options: Options) -> Result:
    """The control that --set kind names."""
    from plumbline.models import control

    return control.embed(counts, options)


if __name__ == "__main__":
    run("control", embed, ("kind", "n_components", "cache_gb"))
