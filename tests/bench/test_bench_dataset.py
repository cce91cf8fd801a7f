"""The bench of the dataset's steps measures every one of them; how fast they are is no test's business."""

from pathlib import Path

import pytest

import dataset
import wiki_pictures


@pytest.fixture(autouse=True)
def _shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched by npm."""
    monkeypatch.setattr(wiki_pictures, "icons", lambda packages: wiki_pictures.shapes())


def test_each_step_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    dataset.main(["--pictures", "6", "--rounds", "1", "--out", str(out)])
    cells = [line.strip("| ").split(" | ") for line in out.read_text().splitlines() if line.startswith("|")]
    rows = cells[2:]
    assert [row[0] for row in rows] == [
        "`data crawl`",
        "`data process`, all cores",
        "`data process`, one process",
        "`data caption --provider name`",
    ]
    for row in rows:
        assert float(row[1]) > 0 and float(row[2]) > 0 and float(row[3]) > 10, row
    assert "Making the pictures alone" in out.read_text()


def test_a_step_that_fails_ends_the_bench(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="failed"):
        dataset.measured(["data", "process", str(tmp_path / "nothing")])
