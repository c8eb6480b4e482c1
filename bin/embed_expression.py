#!/usr/bin/env python3
"""Embed cells by the expression of their most variable genes: bin/plumbline/models/expression.py."""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run


def embed(counts: Counts, options: Options) -> Result:
    """Raw or log-normalised values of the most variable genes."""
    from plumbline.models import expression

    return expression.embed(counts, options)


if __name__ == "__main__":
    run("expression", embed, ("input", "n_hvg"))
