"""Numbers on a command line: what cannot be is refused by the parser, with the range."""

import sys

import pytest

from plumbline.common.arguments import SEEDS, whole
from plumbline.models import command


def test_the_bounds_themselves_are_taken():
    assert whole(1)("1") == 1
    assert whole(*SEEDS)(str(2**32 - 1)) == 2**32 - 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--threads 0", "argument --threads: expected a whole number of at least 1, got '0'"),
        ("--threads two", "argument --threads: expected a whole number of at least 1, got 'two'"),
        ("--batch-size -5", "argument --batch-size: expected a whole number of at least 0, got '-5'"),
        ("--batch-size 2.5", "argument --batch-size: expected a whole number of at least 0, got '2.5'"),
        ("--seed 4294967296", "argument --seed: expected a whole number from 0 to 4294967295, got '4294967296'"),
        ("--seed -1", "argument --seed: expected a whole number from 0 to 4294967295, got '-1'"),
    ],
)
def test_an_embedding_script_refuses(words: str, message: str, monkeypatch, capsys):
    given = ["embed_pca.py", "--counts", "x.h5ad", "--output", "y.npz", *words.split()]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as end:
        command.run("pca", lambda counts, options: None)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
