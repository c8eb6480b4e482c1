"""Labels that name several genes, as in a+b: how they are split, and which of them name the same perturbation."""

import re
from collections import Counter
from collections.abc import Callable, Iterable

SEPARATORS = "+;,|"
_SPLIT = re.compile(f"[{re.escape(SEPARATORS)}]")
_OTHER_SPLIT = re.compile(r"_+|/|&|:")  # which public sets use, but symbols and guide names use too
# controls as screens spell them, in lower case without anything but letters
CONTROLS = re.compile(
    "(neg(ative)?)?(ctrl|control)s?|no[nt]*target(ing)?(control|ctrl)?s?|ntc?|safetarget(ing)?|scrambled?|unperturbed|untreated|"
    "unt|untrt|dmso|vehicle|mock|emptyvector|none|wildtype"
)


def is_combination(label: str) -> bool:
    """Whether a label names several genes, as in a+b."""
    return bool(_SPLIT.search(label))


def split_genes(label: str) -> list[str]:
    """The genes a label names: one, or the parts of a combination."""
    return [part.strip() for part in _SPLIT.split(label) if part.strip()]


def like_control(label: str) -> bool:
    """Whether a label is spelt as controls are: 'ctrl', 'Non-targeting', 'NegCtrl0', ...; not the genes NT5C and NT5C2."""
    plain = label.lower()
    return not re.search(r"[a-z]\d+[a-z]", plain) and bool(CONTROLS.fullmatch(re.sub(r"[^a-z]", "", plain)))


def normalise(labels: Iterable[str], controls: list[str], is_gene: Callable[[str], bool]) -> dict[str, str]:
    """{label: name} of the labels that are to be renamed: a control part is not a gene, and the order does not count.

    'TP53+ctrl' is 'TP53', 'ctrl+ctrl' the first of ``controls``; of 'B+A' and 'A+B', the latter where both occur. Only labels
    of which every part is a gene or a control are touched: '2,4-D' is a compound.
    """
    parts = {label: split_genes(label) for label in labels if is_combination(label) and label not in controls}
    genes: dict[str, tuple[str, ...]] = {}
    for label, split in parts.items():
        kept = [name for name in split if name not in controls and not (like_control(name) and not is_gene(name))]
        if len(split) > 1 and all(map(is_gene, kept)):
            genes[label] = tuple(sorted(set(kept)))
    spellings = Counter(genes.values())
    names: dict[str, str] = {}
    for label, members in genes.items():
        complete = len(members) == len(parts[label]) and spellings[members] == 1
        names[label] = label if complete else "+".join(members) or next(iter(controls), label)
    return {label: name for label, name in names.items() if name != label}


def joined_otherwise(labels: Iterable[str], is_gene: Callable[[str], bool]) -> list[str]:
    """Labels that seem to join genes by a sign that is not split at, such as A_B."""
    found = []
    for label in labels:
        parts = [part for part in _OTHER_SPLIT.split(label) if part]
        genes = [part for part in parts if is_gene(part)]
        if len(parts) > 1 and genes and all(part in genes or like_control(part) for part in parts) and not is_gene(label):
            found.append(label)
    return found
