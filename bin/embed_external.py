#!/usr/bin/env python3
"""Take a user's own embedding: bin/plumbline/models/external.py."""

from plumbline.counts.reading import Counts
from plumbline.embedding.options import Options, Result
from plumbline.models.command import run


def embed(counts: Counts, options: Options) -> Result:
    """The embedding of --embedding, in the order of the counts."""
    from plumbline.models import external

    return external.embed(counts, options)


if __name__ == "__main__":
    run("external", embed, ("key", "id_column", "extra"), takes_embedding=True)
