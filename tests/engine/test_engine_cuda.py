"""What only a GPU can show; docs/gpu.md says how to run it and what each number means.

In float32 (TF32 off) the promises are those of the CPU: one level of 255. In half precision a picture is
compared by its mean difference: kernels are chosen by batch size, and rounding grows from step to step.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lora_files as files
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from drawing import REFERENCES, Calls, levels_apart, of, pictures, row, run

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model, load_model
from itemforge.engine.rows import Cancelled, Failed, Row
from itemforge.settings import EngineSettings
from itemforge.styles.models import starter_dir

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]

CUDA = torch.device("cuda")
#: Mean difference in levels of 255. The pipeline keeps its latents in float16, the engine in float32.
FROM_THE_PIPELINE = 2.0
#: The same of a row among neighbours and alone.
FROM_ALONE = 1.0


@pytest.fixture(autouse=True)
def true_float32() -> Iterator[None]:
    """PyTorch convolves in TF32 unless told otherwise, which has ten bits of mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def loaded(dtype: torch.dtype) -> Model:
    return load_model(starter_dir(), CUDA, dtype)


def mean_apart(one: np.ndarray, other: np.ndarray) -> float:
    a, b = (p.astype(np.float64) * (1 if p.dtype == np.uint8 else 255) for p in (one, other))
    return float(np.abs(a - b).mean())


def pipeline_draws(wanted: Row, dtype: torch.dtype, noise: str = "cpu") -> np.ndarray:
    """The diffusers pipeline's picture on the GPU, float 0..1; `noise` is the device of its generator."""
    pipeline = StableDiffusionPipeline.from_pretrained(starter_dir(), dtype=dtype, safety_checker=None)
    scheduler, options = REFERENCES[wanted.scheduler]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(CUDA)
    return pipeline(
        wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        width=wanted.width,
        height=wanted.height,
        generator=torch.Generator(noise).manual_seed(wanted.seed),
        output_type="np",
    ).images[0]


def wanted(scheduler: Scheduler) -> Row:
    return row(
        prompt="a golden key", negative_prompt="blurry", scheduler=scheduler, steps=20, guidance=5.0, width=96
    )


# ── A lone row ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_a_lone_row_in_float32_equals_the_pipeline(scheduler: Scheduler) -> None:
    drawn = Engine(loaded(torch.float32)).draw(wanted(scheduler)).pixels

    assert levels_apart(drawn, pipeline_draws(wanted(scheduler), torch.float32)) <= 1


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_a_lone_row_in_float16_is_near_the_pipeline_in_float16(scheduler: Scheduler) -> None:
    finished = Engine(loaded(torch.float16)).draw(wanted(scheduler))

    assert (finished.recipe.dtype, finished.recipe.device) == ("float16", "cuda")
    apart = mean_apart(finished.pixels, pipeline_draws(wanted(scheduler), torch.float16))
    assert apart <= FROM_THE_PIPELINE


def test_a_row_drawn_on_the_gpu_is_the_item_that_the_cpu_draws(starter: Model) -> None:
    on_cpu = Engine(starter).draw(wanted(Scheduler.DDIM)).pixels

    for dtype, limit in ((torch.float32, 1.0), (torch.float16, FROM_THE_PIPELINE)):
        assert mean_apart(Engine(loaded(dtype)).draw(wanted(Scheduler.DDIM)).pixels, on_cpu) <= limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_noise_of_the_gpu_is_what_a_cuda_generator_gives_the_pipeline(dtype: torch.dtype) -> None:
    asked = wanted(Scheduler.DDIM)
    drawn = Engine(loaded(dtype), noise_device="cuda").draw(asked)

    expected = pipeline_draws(asked, dtype, noise="cuda")
    assert drawn.recipe.noise_device == "cuda"
    if dtype == torch.float32:
        assert levels_apart(drawn.pixels, expected) <= 1
    assert mean_apart(drawn.pixels, expected) <= FROM_THE_PIPELINE
    assert mean_apart(drawn.pixels, Engine(loaded(dtype)).draw(asked).pixels) > 8, (
        "the CPU's noise is other noise"
    )


# ── Rows together ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_a_row_among_seven_that_come_and_go_is_its_lone_picture(
    dtype: torch.dtype, scheduler: Scheduler
) -> None:
    observed = row("observed", scheduler=scheduler, steps=16, guidance=6.0, seed=11, prompt="a golden key")
    others = [
        (0, row("early", steps=12, seed=1, scheduler=Scheduler.EULER)),
        (1, row("unguided", steps=20, guidance=1.0, seed=2)),
        (2, row("below", steps=9, guidance=0.0, seed=3, scheduler=Scheduler.DPMPP_2M_KARRAS)),
        (3, row("long", steps=6, seed=4, prompt="an apple, a key, a dog, a cake, a fish, " * 12)),
        (4, row("negative", steps=15, seed=5, negative_prompt="dark, blurry", guidance=12.0)),
        (5, row("cancelled", steps=30, seed=6)),
        (9, row("late", steps=5, seed=8, prompt="a (blue:1.4) fish")),
    ]
    model, calls = loaded(dtype), Calls()
    engine = Engine(model, on_unet_call=calls)
    engine.submit(observed)

    def come_and_go(n: int) -> None:
        for at, other in others:
            if at == n:
                engine.submit(other)
        if n == 12:
            engine.cancel("cancelled")

    events = run(engine, come_and_go)

    assert of(events, "cancelled")[-1] == Cancelled("cancelled")
    assert max(len(set(times)) for rows, times in calls.made if "observed" in rows) >= 4
    together = pictures(events)["observed"]
    alone = Engine(model).draw(replace(observed, row_id="lone")).pixels
    if dtype == torch.float32:
        assert levels_apart(together, alone) <= 1
    assert mean_apart(together, alone) <= FROM_ALONE


# ── Start and memory ────────────────────────────────────────────────────────────────────────────


def test_a_start_measures_half_precision_and_passes_the_golden_picture_that_ships(tmp_path: Path) -> None:
    stages: list[str] = []
    engine = Engine.load(
        EngineSettings(home=tmp_path, device="cuda"), on_stage=lambda name, _: stages.append(name)
    )

    assert engine.model.device.type == "cuda"
    assert engine.model.dtype in (torch.float16, torch.bfloat16)
    assert stages.count("measure") == 4 * 3, "two dtypes, two memory formats, three calls each"
    assert (tmp_path / "cache" / "warmup").is_dir(), "the choice is remembered"
    assert engine.draw(row(steps=2)).recipe.dtype == str(engine.model.dtype).removeprefix("torch.")


def test_a_start_with_noise_of_the_gpu_records_its_own_golden_picture(tmp_path: Path) -> None:
    settings = EngineSettings(home=tmp_path, device="cuda", noise_device="cuda")
    for _ in range(2):
        engine = Engine.load(settings)

    assert (tmp_path / "cache" / "golden" / f"{engine.model.base}-cuda.png").is_file()


def test_styles_come_and_go_in_half_precision_and_leave_the_base_as_it_was(tmp_path: Path) -> None:
    model = loaded(torch.float16)
    pairs = files.random_pairs(model.parts.unet, files.UNET_ENDINGS, seed=1)
    style = files.ref(files.save(tmp_path / "style.safetensors", files.kohya(pairs, {})), 0.7)
    before = {name: weight.clone() for name, weight in model.parts.unet.state_dict().items()}
    engine = Engine(model)
    plain = engine.draw(row(steps=4)).pixels

    styled = engine.draw(row(steps=4, loras=(style,))).pixels

    assert levels_apart(plain, styled) > 20, "the style must be seen"
    assert levels_apart(engine.draw(row(steps=4)).pixels, plain) == 0
    assert all(torch.equal(before[name], weight) for name, weight in model.parts.unet.state_dict().items())


@pytest.fixture
def memory_limit() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("memory_limit")
def test_a_batch_that_does_not_fit_the_gpu_is_halved_until_it_does() -> None:
    model = loaded(torch.float32)
    asked = [row(str(n), steps=2, seed=n, width=512, height=512) for n in range(8)]

    def most(rows: list[Row]) -> tuple[int, dict[str, np.ndarray]]:
        """Bytes of GPU memory that drawing `rows` together takes, and the pictures."""
        engine = Engine(model)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        for one in rows:
            engine.submit(one)
        drawn = pictures(run(engine))
        return torch.cuda.max_memory_reserved(), drawn

    few, _ = most(asked[:2])
    many, expected = most(asked)
    assert many > 1.5 * few, "the limit must lie clearly between two rows and eight"
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction((few + (many - few) / 3) / total)
    engine = Engine(model)
    for one in asked:
        engine.submit(one)

    events = run(engine)

    assert engine._limits, "memory did not run out"
    assert all(limit < 8 for limit in engine._limits.values())
    assert not [event for event in events if isinstance(event, Failed)]
    drawn = pictures(events)
    assert set(drawn) == set(expected)
    for name, pixels in drawn.items():
        assert levels_apart(pixels, expected[name]) <= 1, name
