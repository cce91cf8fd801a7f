"""From rows to answers."""

from itemforge.gateway.context import image_url, picture_url
from itemforge.gateway.models import Generation, Picture, ProgressView, StyleView
from itemforge.jobs.records import Request
from itemforge.styles.models import ModelFacts
from itemforge.styles.pack import StylePack


def generation(request: Request, base_url: str, position: int | None = None) -> Generation:
    """The public view of a request; `base_url` is where this client reaches the gateway."""
    done = request.done
    return Generation(
        id=request.id,
        status=request.status,
        prompt=request.prompt,
        composed_prompt=request.params.prompt,
        **request.params.model_dump(exclude={"prompt"}),
        image_url=image_url(request, base_url),
        images=_pictures(request, base_url),
        error=request.error,
        attempt=request.attempt,
        queue_position=position,
        progress=ProgressView(step=done.step, steps=done.steps) if done else None,
        created_at=request.created_at,
        updated_at=request.updated_at,
        finished_at=request.finished_at,
        retry_of=request.retry_of,
    )


def _pictures(request: Request, base_url: str) -> list[Picture]:
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


def style(pack: StylePack, model: ModelFacts) -> StyleView:
    """The public view of a style, with the size that this deployment's model gives it."""
    return StyleView.model_validate(
        {
            "name": pack.name,
            **pack.model_dump(mode="json", include={"id", "version", "licence", "trigger", "template"}),
            "negative": pack.negative,
            "size": (pack.size or model.size).model_dump(),
            "defaults": pack.defaults.model_dump(mode="json"),
        }
    )
