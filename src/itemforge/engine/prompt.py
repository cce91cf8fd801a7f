"""From a prompt to the UNet's text condition: attention weights, chunks of 75 tokens, hidden states.

Nothing is cut: a prompt longer than CLIP's window becomes several windows side by side. A prompt without
weights gives exactly the hidden states of the diffusers pipeline.
"""

import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from itemforge.errors import InvalidInput

#: What one pair of parentheses multiplies by, and one pair of brackets divides by.
EMPHASIS = 1.1
#: Beyond this a weight only makes noise; mostly it is a slip such as (word:12).
MAX_WEIGHT = 20.0
#: Encoded chunks that are kept; one of SD 1.5 is 236 kB.
CACHED_CHUNKS = 256
#: Chunks that go through the text encoder in one call.
ENCODER_BATCH = 16

_TOKEN = re.compile(
    r"\\[\\()\[\]]"  # an escaped bracket or backslash
    r"|[(\[]"
    r"|:\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)"
    r"|[)\]]"
    r"|[^\\()\[\]:]+"
    r"|[:\\]"
)


@dataclass(frozen=True)
class Chunk:
    """One window: token ids with bos, eos and padding, and the weight of each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def weighted(self) -> bool:
        return any(weight != 1.0 for weight in self.weights)


def parse_weights(text: str) -> list[tuple[str, float]]:
    """Split a prompt in A1111's syntax into pieces of equal weight.

    `(x)` multiplies by 1.1, `[x]` divides by it, `(x:1.3)` multiplies by 1.3, `\\(` is a plain
    parenthesis; brackets nest, and those left open reach to the end. Weights that are not 1 apart join.

    Raises:
        InvalidInput: a weight is absurdly large.
    """
    pieces: list[tuple[str, float]] = []
    round_open: list[int] = []
    square_open: list[int] = []
    for match in _TOKEN.finditer(text):
        mark = match.group()
        if mark == "(":
            round_open.append(len(pieces))
        elif mark == "[":
            square_open.append(len(pieces))
        elif (weight := match.group("weight")) is not None and round_open:
            _multiply(pieces, round_open.pop(), float(weight))
        elif mark == ")" and round_open:
            _multiply(pieces, round_open.pop(), EMPHASIS)
        elif mark == "]" and square_open:
            _multiply(pieces, square_open.pop(), 1 / EMPHASIS)
        elif mark[0] == "\\" and len(mark) == 2:
            pieces.append((mark[1], 1.0))
        else:
            pieces.append((mark, 1.0))
    for start in round_open:
        _multiply(pieces, start, EMPHASIS)
    for start in square_open:
        _multiply(pieces, start, 1 / EMPHASIS)
    return _joined(pieces)


def _multiply(pieces: list[tuple[str, float]], start: int, factor: float) -> None:
    pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if abs(weight) > MAX_WEIGHT:
            raise InvalidInput(
                f"the prompt gives {text.strip()[:40]!r} the weight {weight:.3g}; keep weights within "
                f"{MAX_WEIGHT:g}, or write \\( and \\) for plain parentheses"
            )
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


class PromptEncoder:
    """Tokenises and encodes prompts with one text encoder, and remembers the last ones."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self._tokenizer = tokenizer
        self._encoder = text_encoder
        self._window = int(tokenizer.model_max_length)
        self._cache: OrderedDict[tuple[Hashable, Chunk], Tensor] = OrderedDict()

    def chunks(self, text: str) -> tuple[Chunk, ...]:
        """The windows of a prompt; an empty prompt has one.

        Raises:
            InvalidInput: a weight is absurdly large.
        """
        ids: list[int] = []
        weights: list[float] = []
        for piece, weight in parse_weights(text):
            # The tokenizer file may carry a truncation of its own: both are switched off by name.
            found = self._tokenizer(
                piece, add_special_tokens=False, truncation=False, padding=False, verbose=False
            ).input_ids
            ids += found
            weights += [weight] * len(found)
        size = self._window - 2
        starts = range(0, max(len(ids), 1), size)
        return tuple(
            self._chunk(ids[start : start + size], weights[start : start + size]) for start in starts
        )

    def _chunk(self, ids: list[int], weights: list[float]) -> Chunk:
        rest = self._window - 2 - len(ids)
        bos, eos, pad = (getattr(self._tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        return Chunk((bos, *ids, eos, *[pad] * rest), (1.0, *weights, 1.0, *[1.0] * rest))

    def encode(self, style: Hashable, prompts: Sequence[tuple[Chunk, ...]], count: int) -> list[Tensor]:
        """Text conditions of shape (count * window, hidden size), each padded with empty chunks to `count`.

        `style` stands for the weights that are merged into the text encoder now. What is new goes through
        the encoder in one batch.
        """
        padding = self.chunks("") * count
        padded = [(*prompt, *padding)[:count] for prompt in prompts]
        self._fill([(style, chunk) for prompt in padded for chunk in prompt])
        conditions = [torch.cat([self._cache[style, chunk] for chunk in prompt]) for prompt in padded]
        while len(self._cache) > CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return conditions

    def forget(self) -> None:
        """Drop what is remembered, to free memory."""
        self._cache.clear()

    def _fill(self, keys: list[tuple[Hashable, Chunk]]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self._cache]
        for start in range(0, len(missing), ENCODER_BATCH):
            some = missing[start : start + ENCODER_BATCH]
            states = self._hidden_states([chunk for _, chunk in some])
            self._cache.update(zip(some, states, strict=True))
        for key in keys:
            self._cache.move_to_end(key)

    def _hidden_states(self, chunks: list[Chunk]) -> tuple[Tensor, ...]:
        device = self._encoder.device
        states = self._encoder(torch.tensor([chunk.ids for chunk in chunks], device=device))[0]
        if any(chunk.weighted for chunk in chunks):
            states = _emphasise(states, torch.tensor([chunk.weights for chunk in chunks], device=device))
        return tuple(state.clone() for state in states)  # a view would keep the whole batch alive


def _emphasise(states: Tensor, weights: Tensor) -> Tensor:
    """Multiply hidden states (n, window, hidden) by token weights (n, window), each chunk's mean restored.

    The mean is put back as A1111 does it, or heavy weights would shift the whole condition. Chunks without
    weights come out bit-identical.
    """
    plain = states.float()
    weighted = plain * weights[..., None]
    ratio = plain.mean((1, 2), keepdim=True) / weighted.mean((1, 2), keepdim=True)
    return (weighted * torch.where(ratio.isfinite(), ratio, 1.0)).to(states.dtype)
