"""The engine: one loop over denoising steps that rows join and leave at step borders.

`step()` does one denoising step of the rows whose turn it is, or decodes rows that are through. It knows
no queue, no network and no clock but the one it is given; the caller calls it while `busy` and passes the
events on. An error of one row is an event, and only an error of the device is an exception.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import structlog
import torch

from itemforge.engine import failures
from itemforge.engine.cores import Cores
from itemforge.engine.golden import compare, golden_row, reference
from itemforge.engine.lora import Merger
from itemforge.engine.model import Model, load_model
from itemforge.engine.painter import OnUnetCall, Painter
from itemforge.engine.preview import fit_preview
from itemforge.engine.prompt import PromptEncoder
from itemforge.engine.quality import LEVELS, Quality
from itemforge.engine.queue import Queue
from itemforge.engine.rows import Cancelled, Event, Failed, Finished, Preview, Progress, Row, Staged
from itemforge.engine.samplers import Plans
from itemforge.engine.state import RowState, Shape, admit
from itemforge.engine.warmup import pick_device, warm_up
from itemforge.errors import (
    ConfigurationError,
    EngineFailed,
    ItemForgeError,
    ModelError,
    PermanentError,
    RetryableError,
)
from itemforge.imaging.recipe import Recipe, RecipeLora, library_versions
from itemforge.settings import EngineSettings
from itemforge.styles.models import find_model

log = structlog.get_logger(__name__)

#: Rows that share a UNet call when nothing else is set.
BATCH_SIZE = 8
#: Least time between two previews of one row, in seconds.
PREVIEW_INTERVAL = 1.0

Device = Literal["cpu", "cuda"]
#: Called when a stage ends, with its name and how many seconds it took.
OnStage = Callable[[str, float], None]


class Engine:
    """Draws rows with one loaded model. Not thread-safe."""

    def __init__(
        self,
        model: Model,
        *,
        batch_size: int = BATCH_SIZE,
        quality: Quality = "exact",
        noise_device: Device = "cpu",
        cores: int = 1,
        on_stage: OnStage = lambda name, seconds: None,
        on_unet_call: OnUnetCall = lambda row_ids, timesteps: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_unet_call` is told the row ids and timesteps of each UNet call before it is made.

        `cores` are shared out among the places of a batch.

        Raises:
            ModelError: the model's scheduler asks for what is not implemented.
        """
        self.model = model
        self._batch_size = batch_size
        self._quality: Quality = quality
        self._noise_device: Device = noise_device
        self._on_stage = on_stage
        self._clock = clock
        self._plans = Plans(model.parts.scheduler)
        self._encoder = PromptEncoder(model.parts.tokenizer, model.parts.text_encoder)
        self._merger = Merger(model.parts.unet, model.parts.text_encoder)
        self._painter = Painter(model, self._encoder, noise_device, on_unet_call, Cores(cores))
        self._preview = fit_preview(model)
        self._queue = Queue()
        self._drawn: dict[str, RowState] = {}
        self._events: list[Event] = []
        self._limits: dict[tuple[str, Shape], int] = {}
        #: How many batches did not fit into memory so far.
        self.out_of_memory = 0

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        on_stage: OnStage = lambda name, seconds: None,
        on_unet_call: OnUnetCall = lambda row_ids, timesteps: None,
    ) -> "Engine":
        """Load the model of the settings, measure what suits this machine, and prove it on a golden row.

        Raises:
            ModelError: the model cannot be loaded, or draws its golden picture wrongly.
            ConfigurationError: the settings ask for a device that is not here.
            EngineFailed: the device failed.
        """
        device = pick_device(settings.device)
        if settings.noise_device == "cuda" and device.type != "cuda":
            raise ConfigurationError(
                "ITEMFORGE_NOISE_DEVICE=cuda needs a GPU; unset it to draw noise on the CPU"
            )
        if settings.threads:
            torch.set_num_threads(settings.threads)
        start = time.monotonic()
        path = find_model(settings.model, settings.home)
        model = load_model(path, device, torch.float32, settings.home)
        on_stage("load", time.monotonic() - start)
        engine = cls(
            model,
            batch_size=settings.batch_size or BATCH_SIZE,
            noise_device=settings.noise_device,
            on_stage=on_stage,
            on_unet_call=on_unet_call,
        )
        engine._warm_up(settings, start)
        # Only now: the golden picture is drawn without approximations.
        engine._quality = settings.quality
        return engine

    def _warm_up(self, settings: EngineSettings, start: float) -> None:
        expected = reference(self.model, settings.home, self._noise_device, self._draw_golden)
        chosen = warm_up(self.model, settings, self._on_stage)
        self._painter.cores = Cores(chosen.cores)
        self._encoder.forget()  # it remembers states of another dtype
        difference = compare(self._draw_golden().pixels, expected, self.model, chosen.dtype)
        log.info(
            "engine_ready",
            model=self.model.name,
            base=self.model.base,
            **asdict(chosen),
            batch_size=self._batch_size,
            golden_difference=round(difference, 3),
            golden_recorded=expected.recorded,
            seconds=round(time.monotonic() - start, 2),
        )

    def _draw_golden(self) -> Finished:
        try:
            return self.draw(golden_row(self.model))
        except EngineFailed:
            raise
        except ItemForgeError as error:
            raise ModelError(
                f"the model {self.model.name} cannot draw its golden picture: {error}"
            ) from error

    @property
    def device_name(self) -> str:
        """What it draws on, in words."""
        device = self.model.device
        if device.type == "cuda":
            return str(torch.cuda.get_device_name(device))
        return f"{device.type.upper()}, {torch.get_num_threads()} threads"

    @property
    def batch_size(self) -> int:
        """Rows of native size that share a UNet call; halved when memory did not suffice."""
        scale = self.model.vae_scale_factor
        return self._limit("unet", (self.model.height // scale, self.model.width // scale, 1))

    @property
    def busy(self) -> bool:
        """True while `step()` has something to do or to tell."""
        return bool(self._events or self._drawn or len(self._queue))

    def submit(self, row: Row) -> None:
        """Take a row; what is wrong with it comes as a `Failed` event of the next step.

        Raises:
            ValueError: a row of that id is here already.
        """
        if self._find(row.row_id) is not None:
            raise ValueError(f"row {row.row_id} is in the engine already")
        try:
            state = admit(row, self._plans, self._encoder, self.model.vae_scale_factor, LEVELS[self._quality])
        except PermanentError as error:
            self._events.append(Failed(row.row_id, str(error), retryable=False))
        else:
            self._queue.add(state)

    def cancel(self, row_id: str) -> None:
        """Stop a row before its next step; a row that is not here is no error, it may just have ended."""
        if (state := self._find(row_id)) is not None:
            state.cancelled = True

    def watch(self, row_id: str, on: bool) -> None:
        """Somebody looks at this row, or nobody any more: previews are made for watched rows only."""
        if (state := self._find(row_id)) is not None:
            state.watched = on

    def step(self) -> list[Event]:
        """One denoising step of the rows whose turn it is, or one batch of pictures decoded.

        Raises:
            EngineFailed: the device is lost for this process; start another.
        """
        events, self._events = self._events, []
        events += self._drop_cancelled()
        if self._drawn:
            return events + self._decode_some()
        if batch := self._queue.choose(lambda shape: self._limit("unet", shape)):
            events += self._guarded("unet", batch, self._advance)
            events += self._previews(batch)
        return events

    def draw(self, row: Row) -> Finished:
        """Draw one row and wait for it; for callers that have nothing else in the engine.

        Raises:
            EngineFailed: the device is lost for this process.
            RetryableError: the row failed and may succeed later.
            PermanentError: the row cannot be drawn.
        """
        self.submit(row)
        while self.busy:
            for event in self.step():
                if isinstance(event, Finished):
                    return event
                if isinstance(event, Failed):
                    raise RetryableError(event.error) if event.retryable else PermanentError(event.error)
        raise EngineFailed(f"row {row.row_id} ended without a picture")

    # ── Denoising ───────────────────────────────────────────────────────────────────────────────

    def _advance(self, batch: Sequence[RowState]) -> list[Event]:
        events: list[Event] = []
        if new := [state for state in batch if not state.started]:
            with self._stage("merge", new, events):
                self._merger.apply(new[0].row.loras)
            with self._stage("encode", new, events):
                self._painter.begin(new)
        with self._stage("unet"):
            self._painter.step(batch)
        now = self._clock()
        for state in batch:
            if not state.finite:
                events.append(self._not_finite(state))
                self._queue.remove(state)
                continue
            events.append(Progress(state.row.row_id, state.step, state.steps, now))
            if state.step == state.steps:
                self._queue.remove(state)
                self._drawn[state.row.row_id] = state
        return events

    def _previews(self, batch: Sequence[RowState]) -> list[Event]:
        now = self._clock()
        due = [
            state
            for state in batch
            if state.watched and 0 < state.step < state.steps and now - state.previewed >= PREVIEW_INTERVAL
        ]
        due = [state for state in due if self._queue.get(state.row.row_id) is state]
        if not due:
            return []
        for state in due:
            state.previewed = now
        try:
            with self._stage("preview"):
                latents = torch.stack([state.denoised for state in due if state.denoised is not None])
                jpegs = self._preview.jpegs(latents)
        except OSError:
            raise  # as in `_guarded`
        except Exception as error:  # the step is done: a look at it must not cost its events
            if failures.sticky(error) and not failures.out_of_memory(error):
                raise EngineFailed(f"the device failed: {error}") from error
            log.warning("preview_failed", **_about(due), error=failures.reason(error))
            return []
        return [Preview(state.row.row_id, jpeg) for state, jpeg in zip(due, jpegs, strict=True)]

    # ── Decoding ────────────────────────────────────────────────────────────────────────────────

    def _decode_some(self) -> list[Event]:
        drawn = list(self._drawn.values())
        same = [state for state in drawn if state.shape[:2] == drawn[0].shape[:2]]
        return self._guarded("decode", same[: self._limit("decode", _size(same[0]))], self._decode)

    def _decode(self, batch: Sequence[RowState]) -> list[Event]:
        events: list[Event] = []
        with self._stage("decode", batch, events):
            pictures = self._painter.decode(batch)
        for state, pixels in zip(batch, pictures, strict=True):
            del self._drawn[state.row.row_id]
            if pixels is None:
                events.append(self._not_finite(state))
            else:
                events.append(Finished(state.row.row_id, pixels, self._recipe(state.row)))
        return events

    def _recipe(self, row: Row) -> Recipe:
        return Recipe(
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            steps=row.steps,
            sampler=row.scheduler,
            guidance=row.guidance,
            seed=row.seed,
            width=row.width,
            height=row.height,
            base=self.model.base,
            model=self.model.name,
            loras=tuple(RecipeLora(lora.sha256, lora.weight) for lora in row.loras),
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=self.model.device.type,
            quality=self._quality,
            noise_device=self._noise_device,
            versions=library_versions(),
        )

    # ── Failures ────────────────────────────────────────────────────────────────────────────────

    def _guarded(
        self, kind: str, batch: Sequence[RowState], work: Callable[[Sequence[RowState]], list[Event]]
    ) -> list[Event]:
        """Do `work`; without enough memory on half of the batch, after another error row by row."""
        try:
            return work(batch)
        except OSError:
            raise  # a callback's pipe is broken: nobody listens any more, and no row is to blame
        except Exception as error:  # what is left of this step must not take the others down
            if failures.sticky(error) and not failures.out_of_memory(error):
                raise EngineFailed(f"the device failed: {error}") from error
            memory = failures.out_of_memory(error)
            failed = Failed("", failures.reason(error), memory or failures.retryable(error))
        # Out of the except block, or the traceback would keep the tensors that did not fit.
        if memory:
            return self._with_less(kind, batch, work, failed)
        log.warning("step_failed", kind=kind, **_about(batch), error=failed.error)
        if len(batch) == 1:
            return [self._drop(batch[0], failed)]
        return [event for state in batch for event in self._guarded(kind, [state], work)]

    def _with_less(
        self,
        kind: str,
        batch: Sequence[RowState],
        work: Callable[[Sequence[RowState]], list[Event]],
        failed: Failed,
    ) -> list[Event]:
        self.out_of_memory += 1
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._encoder.forget()
        if len(batch) == 1:
            log.warning("out_of_memory", kind=kind, **_about(batch))
            return [self._drop(batch[0], failed)]
        shape = _size(batch[0]) if kind == "decode" else batch[0].shape
        half = (len(batch) + 1) // 2
        self._limits[kind, shape] = half
        log.warning("batch_halved", kind=kind, **_about(batch), batch_size=half)
        return self._guarded(kind, batch[:half], work)

    def _drop(self, state: RowState, failed: Failed) -> Failed:
        self._forget(state)
        return Failed(state.row.row_id, failed.error, failed.retryable)

    def _not_finite(self, state: RowState) -> Failed:
        # In float32 the input is to blame; half precision may have overflowed where float32 would not.
        return Failed(
            state.row.row_id,
            f"the picture became not-a-number after step {state.step}; use a smaller guidance_scale or LoRA weight",
            retryable=self.model.dtype != torch.float32,
        )

    # ── Rows ────────────────────────────────────────────────────────────────────────────────────

    def _drop_cancelled(self) -> list[Event]:
        gone = [state for state in [*self._queue, *self._drawn.values()] if state.cancelled]
        for state in gone:
            self._forget(state)
        return [Cancelled(state.row.row_id) for state in gone]

    def _find(self, row_id: str) -> RowState | None:
        return self._queue.get(row_id) or self._drawn.get(row_id)

    def _forget(self, state: RowState) -> None:
        if self._drawn.pop(state.row.row_id, None) is None:
            self._queue.remove(state)

    def _limit(self, kind: str, shape: Shape) -> int:
        return self._limits.get((kind, shape), self._batch_size)

    @contextmanager
    def _stage(
        self, name: str, rows: Sequence[RowState] = (), events: list[Event] | None = None
    ) -> Iterator[None]:
        """Tell the time of a stage, and add to `events` that these rows went through it."""
        start = self._clock()
        yield
        end = self._clock()
        self._on_stage(name, end - start)
        if events is not None:
            events += [Staged(state.row.row_id, name, start, end) for state in rows]


def _about(batch: Sequence[RowState]) -> dict[str, Any]:
    """What the log says of these rows: of a single one whose it is."""
    alone = batch[0].row.about if len(batch) == 1 else {}
    return {"rows": len(batch), "row_ids": [state.row.row_id for state in batch], **alone}


def _size(state: RowState) -> Shape:
    """The shape without its text, which decoding does not need."""
    return (*state.shape[:2], 0)
