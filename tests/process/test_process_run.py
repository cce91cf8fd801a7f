"""Many files at once: the same bytes however they are made, and nothing that one file does stops the others."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from item_pictures import data, item, on, thing

from itemforge.dataset.process.arranging import arrange
from itemforge.dataset.process.recipe import Reason, Recipe, Record, State
from itemforge.dataset.process.run import Limits, Outcome, process_all
from itemforge.errors import ConfigurationError, InvalidInput

RECIPE = Recipe(size=64)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "sources"
    folder.mkdir()
    files = {f"{seed}.png": data(thing(seed, 100)) for seed in range(5)}
    files |= {
        "grey.jpg": data(on(item(), (120, 120, 120)), "JPEG"),
        "copy of 0.png": files["0.png"],
        "text.png": b"hm",
    }
    for name, bytes_ in files.items():
        (folder / name).write_bytes(bytes_)
    return sorted(folder.iterdir())


def _tree(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file()
    }


def test_the_bytes_are_the_same_in_one_process_in_two_and_in_this(
    tmp_path: Path, sources: list[Path]
) -> None:
    results = [process_all(sources, tmp_path / f"{n}", RECIPE, n) for n in (0, 1, 2)]
    trees = [_tree(tmp_path / f"{n}") for n in (0, 1, 2)]
    assert trees[0] == trees[1] == trees[2] and not any(name.startswith(".") for name in trees[0])
    assert [[each.record for each in result] for result in results] == [
        [each.record for each in results[0]]
    ] * 3
    by_name = {each.path.name: each for each in results[2]}
    assert [each.path for each in results[2]] == sources
    assert by_name["text.png"].record.reason is Reason.FORMAT
    assert by_name["copy of 0.png"].key == by_name["0.png"].key
    for each in results[2]:
        assert each.files.picture.is_file() == each.record.made


def test_it_goes_on_where_it_was_and_what_is_made_is_not_redone(tmp_path: Path, sources: list[Path]) -> None:
    out, told = tmp_path / "out", []
    first = process_all(sources[:4], out, RECIPE, 2)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    whole = process_all(sources, out, RECIPE, 2, tell=lambda done, of, each: told.append((done, of)))
    assert [each.record for each in whole[:4]] == [each.record for each in first]
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert told == [(n + 1, len(sources)) for n in range(len(sources))]
    # What was lost is made again; another recipe makes its own.
    whole[0].files.picture.unlink()
    before = _tree(out)
    process_all(sources, out, RECIPE, 0)
    assert set(_tree(out)) - set(before) == {f"pictures/{whole[0].files.picture.name}"}
    process_all(sources, out, Recipe(size=32), 0)
    assert len(list((out / "pictures").iterdir())) > len(sources)


def test_a_torn_record_is_none(tmp_path: Path, sources: list[Path]) -> None:
    (each, *_) = process_all(sources[:1], tmp_path / "out", RECIPE, 0)
    for text in ("", "{", "[]", '{"state": "ok"}', each.record.to_json()[:-9]):
        each.files.record.write_text(text)
        assert each.files.read() is None
        with pytest.raises(InvalidInput):
            Record.from_json(text)


@pytest.fixture
def harmful(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return "harmful_work:work"


def test_what_a_picture_does_to_its_process_sets_that_picture_aside(
    tmp_path: Path, sources: list[Path], harmful: str
) -> None:
    for name in ("kills", "hangs", "grows", "fails", "once"):
        (tmp_path / f"sources/{name}.png").write_bytes(data(thing(len(name), 80)))
    paths = sorted((tmp_path / "sources").iterdir())
    limits = Limits(seconds=5, memory=3 * 1024**3)
    outcomes = process_all(paths, tmp_path / "out", RECIPE, 2, limits=limits, work=harmful)
    reasons = {each.path.stem: each.record.reason for each in outcomes if each.record.state is State.ASIDE}
    assert reasons == {
        "kills": Reason.DIED,
        "hangs": Reason.SLOW,
        "grows": Reason.MEMORY,
        "fails": Reason.BUG,
        "text": Reason.FORMAT,
    }
    given = (tmp_path / "given").read_text().split("\n")
    assert [given.count(f"{name}.png") for name in ("kills", "hangs", "once", "1")] == [2, 1, 2, 1]
    # The others are as if nothing had been.
    calm = process_all([p for p in paths if p.stem not in reasons], tmp_path / "calm", RECIPE, 0)
    assert {each.key: each.record for each in calm} == {
        each.key: each.record for each in outcomes if each.record.made
    }


_PROGRAM = """
import sys
from pathlib import Path
from itemforge.dataset.process.recipe import Recipe
from itemforge.dataset.process.run import process_all
# No `if __name__`: it need not be importable.
tell = lambda done, of, each: print(done, flush=True)
process_all(sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2]), Recipe(size=64), 2, tell=tell)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_leaves_whole_files_and_no_processes(
    tmp_path: Path, sources: list[Path], how: signal.Signals
) -> None:
    for seed in range(100, 116):
        (tmp_path / f"sources/{seed}.png").write_bytes(data(thing(seed, 300)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-c", _PROGRAM, str(tmp_path / "sources"), str(tmp_path / "out")]
    run = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert run.stdout is not None
    while run.stdout.readline().strip() != "4":
        assert run.poll() is None
    children = [int(each) for each in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    assert len(children) == 2
    run.send_signal(how)
    run.wait(20)
    run.stdout.close()
    deadline = time.monotonic() + 20
    while any(_lives(each) for each in children):
        assert time.monotonic() < deadline, "a child outlived the run"
        time.sleep(0.05)
    paths = sorted((tmp_path / "sources").iterdir())
    made = [path for path in (tmp_path / "out/records").iterdir() if path.suffix == ".json"]
    assert 4 <= len(made) < len(paths)
    process_all(paths, tmp_path / "out", RECIPE, 2)
    process_all(paths, tmp_path / "calm", RECIPE, 0)
    again = {
        name: digest for name, digest in _tree(tmp_path / "out").items() if not name.endswith(".writing")
    }
    assert again == _tree(tmp_path / "calm")


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("at", [1, 4, 6, 7])
def test_a_child_killed_from_outside_costs_nothing(tmp_path: Path, sources: list[Path], at: int) -> None:
    killed: list[int] = []

    def tell(done: int, of: int, each: Outcome) -> None:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        ours = [
            int(each) for each in children if b"process.child" in Path(f"/proc/{each}/cmdline").read_bytes()
        ]
        # The last but one, too: what it had in hand goes to a child that is idle already.
        if done == at:
            os.kill(ours[at % 2], signal.SIGKILL)
            killed.append(at)

    outcomes = process_all(sources, tmp_path / "out", RECIPE, 2, tell=tell)
    assert killed == [at] and [each.record.state for each in outcomes].count(State.ASIDE) == 1, "text.png"


def test_files_that_are_none_are_set_aside(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    paths = [tmp_path / "pipe.png", tmp_path / "gone.png", tmp_path, Path("/dev/zero"), "a\0b"]
    outcomes = process_all(paths, tmp_path / "out", RECIPE, 1)
    assert {each.record.reason for each in outcomes} == {Reason.UNREADABLE}


def test_nothing_to_do_is_done_at_once(tmp_path: Path) -> None:
    assert process_all([], tmp_path / "out") == []


@pytest.mark.parametrize("processes", [0, 2])
def test_a_folder_that_cannot_be_written_stops_the_run(
    tmp_path: Path, sources: list[Path], processes: int
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        process_all(sources, tmp_path / "out", RECIPE, processes)


def test_a_child_that_cannot_start_stops_the_run(tmp_path: Path, sources: list[Path]) -> None:
    with pytest.raises(ConfigurationError, match="does not start"):
        process_all(sources, tmp_path / "out", RECIPE, 1, work="no.such.module:work")


def test_outcomes_are_grouped_and_split_and_files_of_the_same_bytes_are_one(
    tmp_path: Path, sources: list[Path]
) -> None:
    (tmp_path / "sources/small 1.png").write_bytes(data(thing(1, 100).resize((70, 70))))
    outcomes = process_all(sorted((tmp_path / "sources").iterdir()), tmp_path / "out", RECIPE, 0)
    arrangement = arrange(outcomes, 0.5)
    names = {each.key: each.path.name for each in reversed(outcomes)}
    copies = {names[key]: names[of] for group in arrangement.groups for key, of in group.copies.items()}
    assert copies == {"small 1.png": "1.png"} and len(arrangement.groups) == 6
    assert set(arrangement.validation) == {each.key for each in outcomes if each.record.made}
