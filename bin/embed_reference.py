#!/usr/bin/env python3
"""Floors, ceilings and predictors: bin/plumbline/models/reference.py."""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run


def embed(counts: Counts, options: Options) -> Result:
    """The reference that --set kind names."""
    from plumbline.models import reference

    return reference.embed(counts, options)


if __name__ == "__main__":
    run("reference", embed, ("kind", "n_components", "cache_gb"))
