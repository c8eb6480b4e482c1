"""The order of the report's sections, as MultiQC wants it: a number for each, high numbers first."""

LAST = (
    "plumbline_methods_description",
    "plumbline_methods",
    "software_versions",
    "multiqc_software_versions",
    "plumbline-summary",
)


def section_order(sections: list[dict]) -> dict:
    """MultiQC's ``report_section_order`` for sections (dicts with ``id`` and perhaps ``parent_id``) in their order of reading.

    Those of LAST, some of which MultiQC itself writes, come after all others.
    """
    names = dict.fromkeys(part.get("parent_id", part["id"]) for part in sections)
    first = [name for name in names if name not in LAST]
    places = {name: 10 * (len(first) - place) for place, name in enumerate(first)}
    places |= {name: -1000 - place for place, name in enumerate(LAST)}
    return {"report_section_order": {name: {"order": place} for name, place in places.items()}}
