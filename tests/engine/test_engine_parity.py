"""A lone row is the diffusers pipeline's picture: same weights, sampler, seed, steps and guidance."""

import pytest
import torch
from drawing import levels_apart, reference, row, tiny_sd15

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.model import Model

#: (steps, guidance, seed, width, height)
CASES = [
    *[(steps, guidance, 7, 64, 64) for steps in (1, 2, 7) for guidance in (1.0, 4.0, 7.5)],
    (25, 7.5, 2**63 - 1, 64, 64),
    (7, 4.0, 0, 96, 64),
    (7, 1.0, 50, 64, 128),
]


@pytest.mark.parametrize("scheduler", list(Scheduler))
@pytest.mark.parametrize(("steps", "guidance", "seed", "width", "height"), CASES)
def test_a_lone_row_equals_the_diffusers_pipeline(
    starter: Model, scheduler: Scheduler, steps: int, guidance: float, seed: int, width: int, height: int
) -> None:
    wanted = row(
        prompt="birthday cake, white background",
        negative_prompt="blurry, dark",
        scheduler=scheduler,
        steps=steps,
        guidance=guidance,
        seed=seed,
        width=width,
        height=height,
    )

    pixels = Engine(starter).draw(wanted).pixels

    assert pixels.shape == (height, width, 3)
    assert levels_apart(pixels, reference(starter, wanted)) <= 1


@pytest.mark.parametrize("scheduler", list(Scheduler))
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_model_of_sd15s_structure_equals_its_pipeline(
    starter: Model, scheduler: Scheduler, prediction: str
) -> None:
    model = tiny_sd15(starter.parts.tokenizer, prediction_type=prediction)
    wanted = row(scheduler=scheduler, steps=9, guidance=7.5, width=64, height=96)

    pixels = Engine(model).draw(wanted).pixels

    assert pixels.std() > 5, "a flat picture would prove nothing"
    assert levels_apart(pixels, reference(model, wanted)) <= 1


def test_a_prompt_beyond_the_window_is_drawn_from_all_its_chunks(starter: Model) -> None:
    words = "a big red apple with a green leaf and a brown stem on a white table, " * 6
    wanted = row(prompt=words, negative_prompt="blurry", steps=5)
    tokenizer, encoder = starter.parts.tokenizer, starter.parts.text_encoder
    ids = tokenizer(words, add_special_tokens=False, truncation=False, padding=False).input_ids
    assert len(ids) > 75

    def states(some: list[int]) -> torch.Tensor:
        padded = [tokenizer.bos_token_id, *some, tokenizer.eos_token_id]
        padded += [tokenizer.pad_token_id] * (77 - len(padded))
        return encoder(torch.tensor([padded]))[0]

    parts = [ids[n : n + 75] for n in range(0, len(ids), 75)]
    negative = [tokenizer("blurry", add_special_tokens=False, padding=False).input_ids]
    negative += [[]] * (len(parts) - 1)
    expected = reference(
        starter,
        wanted,
        prompt_embeds=torch.cat([states(part) for part in parts], dim=1),
        negative_prompt_embeds=torch.cat([states(part) for part in negative], dim=1),
    )

    assert levels_apart(Engine(starter).draw(wanted).pixels, expected) <= 1


def test_the_same_row_gives_the_same_pixels_again(starter: Model) -> None:
    first, second = (Engine(starter).draw(row(steps=6)).pixels for _ in range(2))

    assert levels_apart(first, second) == 0
