"""The loop's promises beside the pictures: cancel, previews, memory, failures, styles, rows alone."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import Calls, levels_apart, of, pictures, row, run
from PIL import Image
from safetensors.torch import save_file

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model
from itemforge.engine.rows import Cancelled, Failed, Finished, LoraRef, Preview, Progress, Staged
from itemforge.errors import EngineFailed, PermanentError, RetryableError
from itemforge.imaging.recipe import RecipeLora
from itemforge.styles.files import file_sha256


def lora(folder: Path, name: str, seed: int) -> LoraRef:
    """A random LoRA of one layer, strong enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    module = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    path = folder / f"{name}.safetensors"
    down, up = (torch.randn(*shape, generator=generator) for shape in ((4, 224), (224, 4)))
    save_file({f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}, path)
    return LoraRef(path, file_sha256(path), 1.0)


# ── Cancel ──────────────────────────────────────────────────────────────────────────────────────


def test_cancel_takes_effect_at_the_next_step_and_leaves_the_others(starter: Model) -> None:
    calls = Calls()
    engine = Engine(starter, on_unet_call=calls)
    engine.submit(row("gone", steps=50))
    engine.submit(row("stays", steps=4))
    engine.step()
    engine.cancel("gone")

    events = engine.step()

    assert events[0] == Cancelled("gone")
    assert calls.made[-1][0] == ("stays",)
    rest = run(engine)
    assert set(pictures(rest)) == {"stays"}
    assert of(rest, "gone") == []


def test_a_row_can_be_cancelled_before_its_first_step_and_before_it_is_decoded(starter: Model) -> None:
    calls = Calls()
    engine = Engine(starter, on_unet_call=calls)
    engine.submit(row("waiting"))
    engine.cancel("waiting")
    assert engine.step() == [Cancelled("waiting")]
    assert calls.made == []

    engine.submit(row("drawn", steps=1))
    assert [event for event in engine.step() if not isinstance(event, Staged)] == [Progress("drawn", 1, 1)]
    engine.cancel("drawn")
    assert engine.step() == [Cancelled("drawn")]
    assert not engine.busy


def test_a_row_tells_the_stages_that_it_went_through_before_what_came_of_them(starter: Model) -> None:
    engine = Engine(starter)
    for name in ("one", "other"):
        engine.submit(row(name, steps=2))

    events = of(run(engine), "one")

    told = [event.stage if isinstance(event, Staged) else type(event).__name__ for event in events]
    assert told == ["merge", "encode", "Progress", "Progress", "decode", "Finished"]
    moments = [
        moment
        for event in events
        for moment in (
            (event.began, event.ended) if isinstance(event, Staged) else (getattr(event, "at", None),)
        )
        if moment is not None
    ]
    assert len(moments) == 8 and moments == sorted(moments)


def test_cancelling_or_watching_an_unknown_row_does_nothing(starter: Model) -> None:
    engine = Engine(starter)

    engine.cancel("nobody")
    engine.watch("nobody", True)

    assert not engine.busy
    assert engine.step() == []


# ── Previews ────────────────────────────────────────────────────────────────────────────────────


def test_previews_are_made_of_watched_rows_only_and_at_most_once_a_second(starter: Model) -> None:
    now = 0.0
    engine = Engine(starter, clock=lambda: now)
    engine.submit(row("watched", steps=10))
    engine.submit(row("unwatched", steps=10, seed=8))
    engine.watch("watched", True)
    shown = []

    def tick(n: int) -> None:
        nonlocal now
        now += 0.4

    for event in run(engine, tick):
        if isinstance(event, Preview):
            shown.append(event)

    assert {event.row_id for event in shown} == {"watched"}
    assert len(shown) == 3, "steps 1, 4 and 7 are 1.2 s apart; after step 10 comes the picture itself"


def test_a_preview_is_small_and_looks_like_the_picture(starter: Model) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    engine = Engine(starter, clock=clock)
    engine.submit(row(steps=12, prompt="a red apple, white background"))
    engine.watch("a", True)

    events = run(engine)

    previews = [event.jpeg for event in events if isinstance(event, Preview)]
    assert max(map(len, previews)) <= 5000
    assert len(base64.b64encode(previews[-1])) <= 6900
    shown = np.asarray(Image.open(io.BytesIO(previews[-1])).convert("RGB").resize((16, 16)), float)
    drawn = np.asarray(Image.fromarray(pictures(events)["a"]).resize((16, 16), Image.Resampling.BOX), float)
    assert np.corrcoef(shown.ravel(), drawn.ravel())[0, 1] > 0.8


def test_nobody_is_shown_previews_after_watching_ended(starter: Model) -> None:
    engine = Engine(starter, clock=iter(range(10_000)).__next__)
    engine.submit(row(steps=6))
    engine.watch("a", True)
    assert any(isinstance(event, Preview) for event in engine.step())

    engine.watch("a", False)

    assert not any(isinstance(event, Preview) for event in run(engine))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no map")])
def test_a_preview_that_fails_costs_nothing_but_itself(
    starter: Model, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(latents: torch.Tensor) -> list[bytes]:
        raise error

    engine = Engine(starter)
    monkeypatch.setattr(engine._preview, "jpegs", broken)
    engine.submit(row(steps=3))
    engine.watch("a", True)

    events = run(engine)

    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3]
    assert set(pictures(events)) == {"a"}
    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(engine._preview, "jpegs", lambda latents: Calls(errors={0: lost})((), ()))
    engine.submit(row(steps=3))
    engine.watch("a", True)
    with pytest.raises(EngineFailed, match="illegal memory access"):
        run(engine)


# ── Memory ──────────────────────────────────────────────────────────────────────────────────────


def test_out_of_memory_halves_the_batch_and_leaves_the_pictures_as_they_were(starter: Model) -> None:
    wanted = [row(str(n), steps=3, seed=n, scheduler=list(Scheduler)[n % 3]) for n in range(8)]
    calls = Calls(errors={1: torch.OutOfMemoryError("CUDA out of memory"), 2: MemoryError()})
    engine = Engine(starter, on_unet_call=calls)
    for one in wanted:
        engine.submit(one)

    events = run(engine)

    assert [len(rows) for rows, _ in calls.made[:4]] == [8, 8, 4, 2]
    assert engine.batch_size == 2
    assert not [event for event in events if isinstance(event, Failed)]
    for one in wanted:
        progress = [event for event in of(events, one.row_id) if isinstance(event, Progress)]
        assert [event.step for event in progress] == [1, 2, 3], "no step is made twice"
    drawn = pictures(events)
    for one in wanted[:3]:
        assert levels_apart(drawn[one.row_id], Engine(starter).draw(one).pixels) <= 1


def test_a_row_that_does_not_fit_alone_fails_and_can_be_tried_elsewhere(starter: Model) -> None:
    calls = Calls(errors={0: torch.OutOfMemoryError("CUDA out of memory")})
    engine = Engine(starter, on_unet_call=calls)
    engine.submit(row("too big", width=96))

    (failed,) = run(engine)

    assert isinstance(failed, Failed)
    assert failed.row_id == "too big"
    assert failed.retryable
    assert engine.batch_size == 8, "rows of other sizes keep their batch"


def test_out_of_memory_while_decoding_decodes_fewer_at_once(
    starter: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = starter.parts.vae
    decode, batches = vae.decode, []

    def small(latents: torch.Tensor, **options: object) -> object:
        batches.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, **options)

    engine = Engine(starter)
    monkeypatch.setattr(vae, "decode", small)
    for n in range(4):
        engine.submit(row(str(n), steps=1, seed=n))

    drawn = pictures(run(engine))

    assert len(drawn) == 4
    assert batches == [4, 2, 2]
    assert engine.batch_size == 8


# ── Failures ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": "(apple:99)"}, "weight 99"),
        ({"width": 62}, "width must be a multiple of 4"),
        ({"height": 0}, "height must be a multiple of 4"),
        ({"steps": 0}, "num_inference_steps"),
        ({"steps": 1001}, "num_inference_steps"),
        ({"guidance": float("nan")}, "guidance_scale"),
    ],
)
def test_a_row_that_cannot_be_drawn_fails_with_the_reason(starter: Model, wrong: dict, said: str) -> None:
    engine = Engine(starter)
    engine.submit(row("bad", **wrong))
    engine.submit(row("good", steps=1))
    assert engine.busy

    events = run(engine)

    (failed,) = of(events, "bad")
    assert isinstance(failed, Failed)
    assert said in failed.error
    assert not failed.retryable
    assert set(pictures(events)) == {"good"}


def test_an_unexpected_error_of_one_row_does_not_fail_its_neighbours(starter: Model) -> None:
    def fragile(row_ids: tuple[str, ...], timesteps: tuple[float, ...]) -> None:
        if "fragile" in row_ids:
            raise RuntimeError("shapes do not match")

    engine = Engine(starter, on_unet_call=fragile)
    for name in ("one", "fragile", "two"):
        engine.submit(row(name, steps=2))

    events = run(engine)

    (failed,) = of(events, "fragile")
    assert isinstance(failed, Failed)
    assert "shapes do not match" in failed.error
    assert set(pictures(events)) == {"one", "two"}
    for name in ("one", "two"):
        assert [e.step for e in of(events, name) if isinstance(e, Progress)] == [1, 2]


def test_a_lost_device_is_an_exception_for_the_process(starter: Model) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    engine = Engine(starter, on_unet_call=Calls(errors={0: error}))
    engine.submit(row())

    with pytest.raises(EngineFailed, match="illegal memory access"):
        engine.step()


def test_a_broken_pipe_of_a_callback_is_not_blamed_on_a_row(starter: Model) -> None:
    engine = Engine(starter, on_unet_call=Calls(errors={0: BrokenPipeError()}))
    engine.submit(row())

    with pytest.raises(BrokenPipeError):
        engine.step()


def test_a_row_id_may_be_in_the_engine_only_once(starter: Model) -> None:
    engine = Engine(starter)
    engine.submit(row("a"))

    with pytest.raises(ValueError, match="already"):
        engine.submit(row("a"))


def test_draw_raises_by_family(starter: Model) -> None:
    with pytest.raises(PermanentError, match="multiple of"):
        Engine(starter).draw(row(width=3))
    memory = Calls(errors={0: MemoryError()})
    with pytest.raises(RetryableError):
        Engine(starter, on_unet_call=memory).draw(row())


# ── Stages ──────────────────────────────────────────────────────────────────────────────────────


def test_every_stage_border_is_told(starter: Model) -> None:
    stages: list[str] = []
    engine = Engine(starter, on_stage=lambda name, seconds: stages.append(name))
    engine.submit(row(steps=2))
    engine.watch("a", True)

    run(engine)

    assert stages == ["merge", "encode", "unet", "preview", "unet", "decode"]


# ── Styles and rows alone ───────────────────────────────────────────────────────────────────────


def test_rows_of_two_styles_are_drawn_one_style_after_the_other(own_starter: Model, tmp_path: Path) -> None:
    one, two = lora(tmp_path, "one", 1), lora(tmp_path, "two", 2)
    calls, merged = Calls(), []
    engine = Engine(own_starter, on_unet_call=calls)
    wanted = [
        row("one", steps=3, loras=(one,)),
        row("two", steps=3, loras=(two,)),
        row("both", steps=3, loras=(one, two)),
        row("one again", steps=3, seed=8, loras=(one,)),
        row("none", steps=3),
    ]
    for item in wanted:
        engine.submit(item)

    drawn_events = run(engine, lambda n: merged.append(engine._merger.current))

    drawn = pictures(drawn_events)
    assert list(dict.fromkeys(rows for rows, _ in calls.made)) == [
        ("one", "one again"),
        ("two",),
        ("both",),
        ("none",),
    ]
    changes = [merged[n] for n in range(1, len(merged)) if merged[n] != merged[n - 1]]
    assert changes == [(one,), (two,), (one, two), ()], "each style is merged once"
    for item in reversed(wanted):
        assert levels_apart(drawn[item.row_id], engine.draw(item).pixels) <= 1, item.row_id
    assert levels_apart(drawn["one"], drawn["none"]) > 20, "the style must be seen"
    recipe = next(e.recipe for e in drawn_events if isinstance(e, Finished) and e.row_id == "both")
    assert recipe.loras == (RecipeLora(one.sha256, 1.0), RecipeLora(two.sha256, 1.0))


def test_a_stream_of_one_style_does_not_starve_another(own_starter: Model, tmp_path: Path) -> None:
    style = lora(tmp_path, "style", 1)
    engine = Engine(own_starter, batch_size=2)
    for n in range(3):
        engine.submit(row(f"plain {n}", steps=1))
    engine.submit(row("styled", steps=1, loras=(style,)))
    ended: list[str] = []

    def stream(n: int) -> None:
        if n < 30:
            engine.submit(row(f"more {n}", steps=1))

    for event in run(engine, stream):
        if isinstance(event, Finished):
            ended.append(event.row_id)

    ahead = ended.index("styled") - 3
    assert 0 < ahead <= 6, "four may pass it, and the rows that had begun are finished"
    assert len(ended) == 34


def test_a_lora_that_cannot_be_used_fails_its_rows_only(starter: Model, tmp_path: Path) -> None:
    broken = LoraRef(tmp_path / "missing.safetensors", "0" * 64, 1.0)
    engine = Engine(starter)
    engine.submit(row("good", steps=1))
    engine.submit(row("bad", steps=1, loras=(broken,)))
    engine.submit(row("good too", steps=1))

    events = run(engine)

    (failed,) = of(events, "bad")
    assert isinstance(failed, Failed)
    assert "missing.safetensors" in failed.error
    assert not failed.retryable
    assert set(pictures(events)) == {"good", "good too"}


def test_a_suspect_row_is_drawn_with_nothing_else_in_the_making(starter: Model) -> None:
    calls = Calls()
    engine = Engine(starter, on_unet_call=calls)
    for wanted in (row("a", steps=3), row("suspect", steps=2, alone=True), row("b", steps=4)):
        engine.submit(wanted)
    events = run(engine)

    with_suspect = [n for n, (rows, _) in enumerate(calls.made) if "suspect" in rows]
    assert all(calls.made[n][0] == ("suspect",) for n in with_suspect)
    assert with_suspect == list(range(with_suspect[0], with_suspect[0] + 2)), "nobody steps in between"
    order = [event.row_id for event in events if isinstance(event, Finished)]
    assert order == ["a", "b", "suspect"], "nothing is half drawn when it begins"
    assert levels_apart(pictures(events)["suspect"], Engine(starter).draw(row(steps=2)).pixels) <= 1


# ── Recipe ──────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_comes_with_what_is_needed_to_draw_it_again(starter: Model) -> None:
    wanted = row("x", prompt="a (red:1.2) apple", steps=2, guidance=3.5, seed=99, scheduler=Scheduler.EULER)

    recipe = Engine(starter, quality="draft").draw(wanted).recipe

    assert (recipe.prompt, recipe.steps, recipe.guidance, recipe.seed) == ("a (red:1.2) apple", 2, 3.5, 99)
    assert (recipe.base, recipe.model, recipe.sampler) == (starter.base, "starter", "euler")
    assert (recipe.dtype, recipe.device, recipe.noise_device) == ("float32", "cpu", "cpu")
    assert recipe.quality == "draft"
    assert "torch" in dict(recipe.versions)


@pytest.mark.parametrize("package", ["engine", "training"])
def test_how_threads_wait_is_said_before_torch_is_loaded(package: str) -> None:
    code = f"import itemforge.{package}, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"

    def said(**environment: str) -> list[str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | environment)
        return ended.stdout.split()

    assert said() == ["10000", "False"]
    assert said(OMP_WAIT_POLICY="active") == ["None", "False"], "who knows better decides"
    assert said(GOMP_SPINCOUNT="7") == ["7", "False"]
