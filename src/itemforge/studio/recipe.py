"""How a picture was made, as people read it."""

from itemforge.imaging.recipe import SAMPLER_NAMES
from itemforge.jobs.records import Request


def recipe(request: Request, n: int = 0) -> dict[str, str]:
    """Name and value of each setting, in the order in which they are shown."""
    params = request.params
    image = next((each for each in request.images if each.n == n), None)
    width, height = (image.width, image.height) if image else (params.width, params.height)
    shown = {
        "Style": request.style or "none",
        "Seed": str(image.seed if image else params.seed + n),
        "Steps": str(params.num_inference_steps),
        "Guidance": f"{params.guidance_scale:g}",
        "Sampler": SAMPLER_NAMES[params.scheduler],
        "Size": f"{width} × {height}" if width and height else "the style's",
        "LoRA weight": f"{params.lora_weight:g}" if params.lora_weight is not None else "the style's",
        "Drawn prompt": params.prompt,
        "Negative prompt": params.negative_prompt or "none",
    }
    return {"Prompt": request.prompt, **shown}


def settings_text(request: Request, n: int = 0) -> str:
    """The recipe as lines of text, to be pasted anywhere."""
    return "\n".join(f"{name}: {value}" for name, value in recipe(request, n).items())
