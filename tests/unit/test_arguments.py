"""Numbers on a command line: what cannot be is refused by the parser, with the range."""

import argparse
import sys

import pytest

from plumbline.common.arguments import SEEDS, among, seeds, share, whole
from plumbline.common.errors import UserError
from plumbline.models import command
from plumbline.scoring.screen import read_screen


def test_the_bounds_themselves_are_taken():
    assert whole(1)("1") == 1
    assert (share("0"), share("1e-3"), share("1")) == (0, 1e-3, 1)
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


def test_lists_are_read_with_their_blanks():
    assert seeds("42, 0") == [42, 0]
    assert seeds("") == []
    assert among(["paper", "corrected"])("corrected, paper") == ["corrected", "paper"]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (seeds, "42,x", "from 0 to 4294967295, got 'x'"),
        (seeds, "42,", "got ''"),
        (seeds, "-1", "got '-1'"),
        (seeds, "42,042", "names one twice"),
        (among(["paper", "corrected"]), "papers", "unknown: 'papers'. Known: paper, corrected."),
        (among(["paper", "corrected"]), "paper,paper", "names one twice"),
        (share, "nan", "a number from 0 to 1, got 'nan'"),  # a tolerance that nothing exceeds
        (share, "-0.1", "a number from 0 to 1, got '-0.1'"),
        (share, "little", "a number from 0 to 1, got 'little'"),
    ],
)
def test_bad_lists(parse, text: str, message: str):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse(text)


def test_a_folder_that_holds_no_tables_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cells\.parquet does not exist"):
        read_screen(tmp_path)
