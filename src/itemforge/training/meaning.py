"""Many words, one thing: the text encoder learns alone what the UNet is to be told.

Pictures teach a few phrasings of each thing. Here, with the UNet as it is, every phrasing learns to say to its cross-attention what
the plainest caption of the thing says: `we need a kettle, quickly` what `a kettle` does, and a word that no caption had what the thing does
that the sentence encoder of `words` finds nearest. Compared is what each cross-attention layer takes from the states, for queries that the UNet asked
while it denoised pictures (attention transfer, Zagoruyko and Komodakis 2017, with values in place of maps); so phrasings of any length are comparable,
and no picture is drawn.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional

from itemforge.dataset.colours import HUES
from itemforge.dataset.concepts import Concept
from itemforge.dataset.icon_sets import SETS
from itemforge.dataset.phrases import ADJECTIVES, GROUND, TRAINED, phrase, sentence, with_article
from itemforge.training.config import Meaning
from itemforge.training.diffusion import NOISE
from itemforge.training.learner import Learner, Learning, autocast
from itemforge.training.stage import generator

#: Queries of each layer that are kept at most, and those that a step asks.
_KEPT, _ASKED = 1024, 64
#: Most captions are short; what comes after this many tokens is looked at in every fourth step.
_SHORT = 32
_COLOURED, _TRIGGERED = 0.25, 0.15
#: Below this share of what differs an error hardly counts; a root has no slope at nothing.
_LEAST = 1e-3


@dataclass(frozen=True)
class Layer:
    """One cross-attention: its way from states to keys and values, and queries (heads, N, d) that were asked."""

    to_k: nn.Linear
    to_v: nn.Linear
    queries: Tensor

    def taken(self, states: Tensor, asked: Tensor) -> Tensor:
        """What some queries, each named by a number from 0 to 1, take from (B, L, D) states: (B, heads, N, d)."""
        batch, length, _ = states.shape
        queries = self.queries[:, (asked * self.queries.shape[1]).long()].expand(batch, -1, -1, -1)
        keys, values = (
            way(states).view(batch, length, len(self.queries), -1).transpose(1, 2)
            for way in (self.to_k, self.to_v)
        )
        return functional.scaled_dot_product_attention(queries.to(keys.dtype), keys, values)


@torch.no_grad()
def layers_of(unet: Any, latents: Tensor, states: Tensor, seed: int) -> list[Layer]:
    """The UNet's cross-attentions with the queries of noisy (N, C, h, w) latents, whose captions have these states."""
    chance = generator(seed, 0)
    alphas = DDPMScheduler(**NOISE).alphas_cumprod.to(latents.device)
    times = torch.randint(len(alphas), (len(latents),), generator=chance).to(latents.device)
    noise = torch.randn(latents.shape, generator=chance).to(latents.device)
    kept = alphas[times][:, None, None, None]
    asked: dict[str, Tensor] = {}
    modules = {name: module for name, module in unet.named_modules() if name.endswith("attn2")}
    hooks = [
        module.to_q.register_forward_hook(lambda _, __, out, name=name: asked.__setitem__(name, out))
        for name, module in modules.items()
    ]
    unet(latents * kept.sqrt() + noise * (1 - kept).sqrt(), times, states)
    for hook in hooks:
        hook.remove()
    found = []
    for name, module in modules.items():
        rows = asked[name].flatten(0, 1)
        rows = rows[torch.randperm(len(rows), generator=chance)[:_KEPT]]
        found.append(Layer(module.to_k, module.to_v, rows.view(len(rows), module.heads, -1).transpose(0, 1)))
    return found


class Wordings:
    """Chance captions, each with the plainest caption of the thing that it means.

    `meant` are words and the places of their things, `others` words that stand around them, of which some may be things, too.
    """

    def __init__(
        self, concepts: Sequence[Concept], meant: Sequence[tuple[str, int]], others: Sequence[str]
    ) -> None:
        self._concepts, self._meant = concepts, meant
        # Those that mean something elsewhere, too: in `from a chest: a key` nothing but the key is to be drawn.
        self._others = [*others, *(each.label for each in concepts), *(word for word, _ in meant)]
        things = {word for word, _ in meant} | {
            name for each in concepts for name in (each.label, *each.synonyms)
        }
        self._nothings = [word for word in others if word not in things] or self._others
        self._looks = sorted({each.look for each in SETS})
        self._triggers = sorted({each.trigger for each in SETS if each.trigger})

    def choose(self, count: int, dice: random.Random) -> tuple[list[str], list[str]]:
        """`count` captions and their plain twins: half with a name of a thing, half with a word that is near to one."""
        pairs = [self._pair(dice, near=n % 2 == 1 and bool(self._meant)) for n in range(count)]
        return [said for said, _ in pairs], [plain for _, plain in pairs]

    def _pair(self, dice: random.Random, near: bool) -> tuple[str, str]:
        if near:
            name, place = dice.choice(self._meant)
            thing = self._concepts[place]
        else:
            thing = dice.choice(self._concepts)
            name = _as_people_write((thing.label, *thing.synonyms), dice)
        colour = dice.choice(list(HUES)) if dice.random() < _COLOURED else None
        coloured = f"{colour} {name}" if colour else name
        if dice.random() < 0.5:
            said = phrase(dice.choice(TRAINED), name, colour)
        else:
            said = sentence(coloured, self._others, self._nothings, dice)
        ending = f", {dice.choice(self._looks)}" if dice.random() < 0.9 else ""
        ending += f", {GROUND}" if dice.random() < 0.7 else ""
        trigger = f"{dice.choice(self._triggers)}, " if dice.random() < _TRIGGERED else ""
        plain = with_article(f"{colour} {thing.label}" if colour else thing.label)
        return trigger + said + ending, trigger + plain + ending


def _as_people_write(names: Sequence[str], dice: random.Random) -> str:
    """One of a thing's names, now and then as many, two of them together, with a word that is not to be drawn, or misspelt."""
    name = dice.choice(names)
    way = dice.random()
    if way < 0.1:
        return f"{name} {dice.choice(names)}"
    if way < 0.25:
        return f"{dice.choice(ADJECTIVES)} {name}"
    if way < 0.3:
        return f"{name}s"
    if way < 0.4 and len(name) > 4:
        at = dice.randrange(1, len(name) - 1)
        # A letter lost, doubled, changed with the next, or another vowel in its place.
        written, of = dice.choice(
            (("", 1), (name[at] * 2, 1), (name[at + 1] + name[at], 2), (dice.choice("aeiou"), 1))
        )
        return name[:at] + written + name[at + of :]
    return name


class MeaningStage(Learning):
    """The text encoder alone; it begins as its own teacher. The loss says how much of what is told is not yet understood."""

    name = "meaning"

    def __init__(
        self,
        text_encoder: Any,
        tokenizer: Any,
        layers: list[Layer],
        wordings: Wordings,
        config: Meaning,
        seed: int,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.steps, self.done = config.steps, 0
        self._teacher = copy.deepcopy(text_encoder).requires_grad_(False).eval()
        self._text_encoder, self._tokenizer = text_encoder, tokenizer
        self._layers, self._wordings, self._batch = layers, wordings, config.batch_size
        self._seed, self._device, self._precision = seed, device, precision
        text_encoder.requires_grad_(True).train()
        self.learner = Learner([text_encoder], config)

    def step(self) -> dict[str, float]:
        chance = generator(self._seed, self.done)
        dice = random.Random(self._seed * 1_000_003 + self.done)  # noqa: S311 - variety, not secrecy
        said, plain = self._wordings.choose(self._batch, dice)
        length = None if self.done % 4 == 0 else _SHORT
        asked = torch.rand(_ASKED, generator=chance)
        with autocast(self._device, self._precision):
            with torch.no_grad():
                wanted = self._teacher(self._tokens(plain)[:, :length]).last_hidden_state
            told = self._text_encoder(self._tokens(said)[:, :length]).last_hidden_state
            missed = [_missed(layer.taken(told, asked), layer.taken(wanted, asked)) for layer in self._layers]
        loss = torch.stack(missed).mean()
        norm = self.learner.finish(loss, self.done)
        self.done += 1
        return {"missed": float(loss.detach()), "norm": norm}

    def _tokens(self, texts: list[str]) -> Tensor:
        made: Tensor = self._tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return made.to(self._device)

    def finish(self) -> None:
        """Leave the averages in the network."""
        self.learner.ema.swap()
        self._text_encoder.requires_grad_(False).eval()


def _missed(told: Tensor, wanted: Tensor) -> Tensor:
    """The mean over captions of what each misses of (B, heads, N, d), as a share of what differs between them.

    Roots of the squared errors: the squares themselves would have every hard word half understood, which draws nothing,
    and no word wholly (88 of 100 new templates were right with roots, and 83 with squares, after 1,200 steps from one model).
    """
    told, wanted = told.float(), wanted.float()
    differs = (wanted - wanted.mean(0)).square().mean().clamp(min=1e-8)
    return ((told - wanted).square().mean((1, 2, 3)) / differs + _LEAST).sqrt().mean()
