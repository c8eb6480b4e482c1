"""Sections of the experiment objectives."""


def sections(run, folder) -> list[dict]:
    """None yet."""
    return []
