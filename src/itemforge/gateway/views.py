"""From rows to answers."""

from collections.abc import Sequence
from urllib.parse import urlencode

from itemforge.contract import Status
from itemforge.gateway.context import image_url, picture_url
from itemforge.gateway.models import Generation, OutputView, Picture, ProgressView, StyleView
from itemforge.imaging.naming import derivative_key
from itemforge.jobs.records import Request
from itemforge.styles.models import ModelFacts
from itemforge.styles.pack import StylePack


def generation(
    request: Request, base_url: str, position: int | None = None, favourite: bool | None = None
) -> Generation:
    """The public view of a request; `base_url` is where this client reaches the gateway."""
    done = request.done
    return Generation(
        id=request.id,
        status=request.status,
        prompt=request.prompt,
        composed_prompt=request.params.prompt,
        **request.params.model_dump(exclude={"prompt"}),
        image_url=image_url(request, base_url),
        images=pictures(request, base_url),
        outputs=_outputs(request, base_url),
        error=request.error,
        attempt=request.attempt,
        queue_position=position,
        progress=ProgressView(step=done.step, steps=done.steps) if done else None,
        created_at=request.created_at,
        updated_at=request.updated_at,
        finished_at=request.finished_at,
        retry_of=request.retry_of,
        flagged=request.flagged,
        favourite=favourite,
        deleted_at=request.deleted_at,
    )


def pictures(request: Request, base_url: str) -> list[Picture]:
    """What is drawn of a request."""
    if not request.images and request.image_url is not None:
        # The original worker reports an address and nothing else.
        params = request.params
        return [
            Picture(n=0, seed=params.seed, url=request.image_url, width=params.width, height=params.height)
        ]
    return [
        Picture(
            n=image.n,
            seed=image.seed,
            url=picture_url(image, base_url),
            width=image.width,
            height=image.height,
        )
        for image in request.images
    ]


def _outputs(request: Request, base_url: str) -> list[OutputView]:
    output = request.params.output
    if output is None or request.status is not Status.COMPLETED:
        return []
    asked = urlencode(
        output.model_dump(mode="json", exclude_defaults=True) | {"background": output.background}
    )
    return [
        OutputView(
            n=n,
            url=f"{base_url}/v1/generations/{request.id}/image?n={n}&{asked}",
            key=derivative_key(request.id, n, output),
            format=output.format,
        )
        for n in range(request.params.num_images)
    ]


def style(pack: StylePack, model: ModelFacts, versions: Sequence[int] = ()) -> StyleView:
    """The public view of a style, with the size that this deployment's model gives it."""
    return StyleView.model_validate(
        {
            "name": pack.name,
            **pack.model_dump(
                mode="json", include={"id", "version", "licence", "trigger", "template", "base"}
            ),
            "negative": pack.negative,
            "size": (pack.size or model.size).model_dump(),
            "defaults": pack.defaults.model_dump(mode="json"),
            "loras": [lora.model_dump(include={"sha256", "weight"}) for lora in pack.loras],
            "versions": list(versions),
        }
    )
