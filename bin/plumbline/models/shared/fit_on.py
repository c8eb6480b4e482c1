"""``fit_on``: in one word, the cells a model was fitted on. It is an option of every model and a column of every score.

train          the train cells of the split with the model's seed
all, none      all cells of the data set; nothing is fitted (the two mean the same cells to a model)
train@0.05#2   a share 0.05 of them, whole batches first, draw number 2 (the first draw is number 1)
kang           all cells of another data set named kang
kang:train     the train cells of that data set; a share may follow here, too

What is embedded may be damaged first, which every form may say at its end (the experiment robustness; damage.py):

train+thinned25    every count is kept with a probability of 25 %
none+panel1000     only the 1,000 most variable genes are measured
"""

from dataclasses import dataclass

from plumbline.common.errors import UserError

PARTS = ("train", "all", "none")


@dataclass(frozen=True)
class FitOn:
    """dataset: '' for the data set that is embedded. part: one of PARTS. share: in (0, 1]. draw: 1, 2, ...

    damage: '' or what was done to the counts beforehand."""

    dataset: str
    part: str
    share: float = 1.0
    draw: int = 1
    damage: str = ""


def read_fit_on(text: str, elsewhere: bool) -> FitOn:
    """Parse ``text``; ``elsewhere``: another data set was given to fit on. Raises UserError on what it cannot mean."""
    words, _, damage = text.partition("+")
    cells, at, share = words.partition("@")
    dataset, colon, part = cells.rpartition(":")
    if not colon and elsewhere and part not in PARTS:
        dataset, part = part, "all"
    if part not in PARTS or (dataset and not elsewhere):
        hint = " To fit on another data set, give it as --source." if dataset or not at else ""
        raise UserError(f"--fit-on {text}: expected train, all, or a share of either such as train@0.05#1.{hint}")
    number, hash_, draw = share.partition("#")
    try:
        found = FitOn(
            dataset=dataset, part=part, share=float(number) if at else 1.0, draw=int(draw) if hash_ else 1, damage=damage
        )
    except ValueError:
        raise UserError(f"--fit-on {text}: expected a number after @ and a whole number after #, as in train@0.05#1.") from None
    if not 0 < found.share <= 1 or found.draw < 1:
        raise UserError(f"--fit-on {text}: expected a share above 0 and at most 1, and a draw of 1 or more.")
    return found
