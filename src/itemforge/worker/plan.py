"""From a job's parameters to the engine's rows: style, LoRA files, size, seeds."""

from itemforge.contract import JobParams
from itemforge.engine.rows import LoraRef, Row
from itemforge.errors import InvalidInput, InvalidStyle
from itemforge.styles.cache import StyleCache
from itemforge.styles.pack import StylePack
from itemforge.worker.engine_child import Ready
from itemforge.worker.job import Job


class Planner:
    """`default_style` gives the LoRA of messages that name no style; their prompt stays as it is."""

    def __init__(self, styles: StyleCache, default_style: str) -> None:
        self._styles = styles
        self._default_style = default_style

    async def rows(self, job: Job, engine: Ready) -> list[Row]:
        """One row for each image.

        Raises:
            PermanentError: no such style, a style of another base model, a size outside its limits.
            RetryableError: the style's files cannot be fetched now.
        """
        params = job.params
        pack = await self._styles.pack(params.style or self._default_style)
        if pack.base is not None and pack.base != engine.base:
            raise InvalidStyle(f"style {pack.name} is made for another base model than this worker's")
        width, height = _size(params, pack, engine)
        files = await self._styles.loras(pack, params.lora_weight)
        loras = tuple(LoraRef(path, sha256, weight) for path, sha256, weight in files)
        return [
            Row(
                row_id=job.row_id(n),
                prompt=params.prompt,
                negative_prompt=params.negative_prompt,
                steps=params.num_inference_steps,
                guidance=params.guidance_scale,
                seed=params.seed + n,
                scheduler=params.scheduler,
                width=width,
                height=height,
                loras=loras,
                alone=job.alone,
                about=job.about,
            )
            for n in range(params.num_images)
        ]


def _size(params: JobParams, pack: StylePack, engine: Ready) -> tuple[int, int]:
    native = pack.size
    width = params.width or (native.width if native else engine.width)
    height = params.height or (native.height if native else engine.height)
    if native and not all(native.min <= side <= native.max for side in (width, height)):
        raise InvalidInput(
            f"{width}x{height} is outside the limits of style {pack.name}: "
            f"{native.min} to {native.max} pixels a side"
        )
    return width, height
