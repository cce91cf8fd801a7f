"""A cut-out against 40 icons whose alpha is known: within 0.10 along the edge and 0.02 elsewhere."""

from collections import Counter
from pathlib import Path

import pytest
from cutout import PACKAGES, Errors, Icon, alpha_errors, mean, measure, read_icons, sheet

from itemforge.contract import Holes
from services import npm


@pytest.fixture(scope="module")
def packages(npm_packages: Path) -> Path:
    for package in PACKAGES.values():
        npm.fetched(package, npm_packages)
    return npm_packages


def test_the_set_has_what_is_hard() -> None:
    icons = read_icons()
    kinds = Counter(icon.kind for icon in icons)
    assert len({(icon.set, icon.code) for icon in icons}) == 40
    assert kinds["holes"] >= 10 and kinds["paint"] >= 10 and {icon.set for icon in icons} == set(PACKAGES)


@pytest.mark.parametrize("treatment", ["clean", "jpeg", "soft"])
def test_alpha_is_right_along_the_edge_and_elsewhere(packages: Path, treatment: str) -> None:
    found = measure(packages, treatment, 256)
    errors = mean(found)
    for icon, each in found:
        print(f"{icon.set} {icon.name} ({icon.kind}): band {each.band:.3f}, elsewhere {each.elsewhere:.3f}")
    print(f"40 icons, {treatment}: band {errors.band:.4f}, elsewhere {errors.elsewhere:.4f}")
    assert len(found) == 40
    assert errors.band < 0.10 and errors.elsewhere < 0.02


def test_the_switch_cuts_every_hole_and_keeps_all_paint(packages: Path) -> None:
    """Told what to do, the cut-out needs no guess, and is nearly exact."""
    for switch, kind in ((Holes.CUT, "holes"), (Holes.KEEP, "paint")):
        right = mean(measure(packages, "clean", 256, switch, (kind,)))
        wrong = mean(measure(packages, "clean", 256, switch, ({"holes": "paint", "paint": "holes"}[kind],)))
        print(f"{switch} on icons with {kind}: {right}; on the others: {wrong}")
        assert right.elsewhere < 0.015 and right.elsewhere < wrong.elsewhere


def test_the_measure_finds_errors() -> None:
    import numpy as np

    true = np.zeros((40, 40), np.uint8)
    true[10:30, 10:30] = 255
    assert alpha_errors(true, true) == Errors(0, 0)
    grown = np.zeros_like(true)
    grown[9:31, 9:31] = 255
    off = alpha_errors(true, grown)
    assert off.elsewhere == 0 and off.band == pytest.approx(0.25, abs=0.05)
    assert alpha_errors(true, np.full_like(true, 255)).elsewhere > 0.5
    assert mean([(Icon("", "", "", ""), Errors(0.2, 0)), (Icon("", "", "", ""), Errors(0, 0.1))]) == Errors(
        0.1, 0.05
    )


def test_a_sheet_shows_each_picture_on_four_grounds() -> None:
    import numpy as np

    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[20:44, 20:44] = (200, 20, 30)
    page = np.asarray(sheet([("a", picture)], 64).convert("RGB"))
    red = (page == (200, 20, 30)).all(-1)
    assert red.sum() == pytest.approx(4 * 24 * 24, rel=0.02)
    assert (page == (0x20, 0x24, 0x2C)).all(-1).any() and (page == (0x2F, 0x8F, 0x6B)).all(-1).any()
