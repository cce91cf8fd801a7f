"""A batch whose places are shared out among cores is the same batch."""

import threading

import pytest
import torch
from drawing import levels_apart, pictures, row, run

from itemforge.engine.cores import Cores
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model
from itemforge.errors import EngineFailed


def test_every_place_comes_back_in_order_and_each_core_had_a_part() -> None:
    seen: list[tuple[str, int, int, bool]] = []

    def work(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        name = threading.current_thread().name
        seen.append((name, len(one), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return one * 10 + other

    places = torch.arange(5.0)
    shared = Cores(3)(work, places, places + 1)

    assert shared.tolist() == (places * 10 + places + 1).tolist()
    assert sorted(size for _, size, _, _ in seen) == [1, 2, 2]
    assert all(name.startswith("cores") and mode for name, _, _, mode in seen)
    assert {threads for _, _, threads, _ in seen} == {1}


def test_few_places_have_several_threads_each_and_a_lone_one_stays_whole() -> None:
    threads: list[int] = []

    def work(one: torch.Tensor) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return one

    before = torch.get_num_threads()
    cores = Cores(6)
    cores(work, torch.zeros(2))
    assert threads == [3, 3]
    cores(work, torch.zeros(1))
    assert threads[2:] == [before], "in the caller's own thread"
    assert torch.get_num_threads() == before


def test_an_error_comes_out_after_all_parts_have_ended() -> None:
    ended = threading.Event()
    broken = threading.Event()

    def work(one: torch.Tensor) -> torch.Tensor:
        if one[0] == 0:
            broken.set()
            raise torch.OutOfMemoryError("out of memory")
        assert broken.wait(10)
        ended.set()
        return one

    with pytest.raises(torch.OutOfMemoryError):
        Cores(2)(work, torch.arange(2.0))
    assert ended.is_set()


def test_rows_drawn_on_two_cores_are_the_pictures_of_one(starter: Model) -> None:
    wanted = [row(str(n), seed=n, steps=3 + n, guidance=(1.0, 4.0)[n % 2]) for n in range(3)]
    engine = Engine(starter, cores=2)
    for one in wanted:
        engine.submit(one)

    drawn = pictures(run(engine))

    for one in wanted:
        assert levels_apart(drawn[one.row_id], Engine(starter).draw(one).pixels) <= 1


def test_a_device_error_on_one_core_is_the_engines(starter: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(latents: torch.Tensor, **options: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    engine = Engine(starter, cores=2)
    monkeypatch.setattr(starter.parts.vae, "decode", broken)
    for n in range(2):
        engine.submit(row(str(n), steps=1))

    with pytest.raises(EngineFailed):
        run(engine)
