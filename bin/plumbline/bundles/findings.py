"""The lines of a verification."""

from dataclasses import dataclass

OK, NOTE, FAILED, UNVERIFIED = "ok", "note", "FAILED", "not verified"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of a verification. status: OK, NOTE, FAILED or UNVERIFIED; advice: what to do next."""

    status: str
    what: str
    text: str
    advice: str = ""


def ok(what: str, text: str) -> Finding:
    """Something that was checked and is as it should be."""
    return Finding(status=OK, what=what, text=text)


def note(what: str, text: str) -> Finding:
    """Something to know, which is no fault."""
    return Finding(status=NOTE, what=what, text=text)


def failed(what: str, text: str, advice: str = "") -> Finding:
    """A fault."""
    return Finding(status=FAILED, what=what, text=text, advice=advice)


def unverified(what: str, text: str, advice: str = "") -> Finding:
    """Something that could not be checked."""
    return Finding(status=UNVERIFIED, what=what, text=text, advice=advice)
