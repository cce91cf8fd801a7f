"""Nouns from the files of WordNet: common ones, with what they mean first."""

from pathlib import Path

import pytest

from itemforge.errors import ModelError
from itemforge.training.dictionary import read_nouns

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
DATA = """\
00000100 15 n 02 Hippo 0 Hippo_Regius 0 001 @ 00000400 n 0000 | an ancient town; "near Annaba"
00000200 05 n 03 hippopotamus 0 hippo 0 Hippopotamus_amphibius 0 001 @ 00000400 n 0000 | massive animal | of rivers; eats grass
00000300 06 n 01 loving_cup 0 001 @ 00000400 n 0000 | a large metal vessel
00000400 03 n 02 thing 0 cup_of_cold_tea 0 000 | what is
"""
INDEX = """\
cup_of_cold_tea n 1 0 1 0 00000400
hippo n 2 1 @ 2 0 00000100 00000200
hippo_regius n 1 1 @ 1 0 00000100
hippopotamus n 1 1 @ 1 1 00000200
hippopotamus_amphibius n 1 1 @ 1 0 00000200
loving_cup n 1 2 @ ~ 1 0 00000300
9-iron n 1 1 @ 1 0 00000400
"""


def _write(folder: Path, data: str = DATA, index: str = INDEX) -> Path:
    (folder / "data.noun").write_text(LICENCE + data)
    (folder / "index.noun").write_text(LICENCE + index)
    return folder


def test_common_nouns_with_the_first_sense_that_is_no_name(tmp_path: Path) -> None:
    animal = "hippopotamus, hippo, Hippopotamus amphibius: massive animal | of rivers"
    assert read_nouns(_write(tmp_path)) == {
        "hippo": animal,
        "hippopotamus": animal,
        "loving cup": "loving cup: a large metal vessel",
    }


@pytest.mark.parametrize(
    ("data", "index"),
    [("no nouns\n", INDEX), (DATA, "hippo n x\n"), (DATA, "hippo n 1 0 1 0 00000999\n")],
    ids=["no data", "no index", "a sense that is not there"],
)
def test_other_files_are_refused(tmp_path: Path, data: str, index: str) -> None:
    with pytest.raises(ModelError, match="no nouns of WordNet"):
        read_nouns(_write(tmp_path, data, index))


def test_a_folder_without_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no nouns of WordNet"):
        read_nouns(tmp_path)
