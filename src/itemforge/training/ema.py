"""The slow average of weights that is used for drawing (Polyak averaging)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ema:
    """Averages of a module's parameters, in float32 beside them.

    `decay` is reached slowly, by min(decay, (1 + n) / (10 + n)): a short run is not half of its start.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self.averages = [p.detach().clone().float() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, [p.float() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def restore(self, averages: list[Tensor]) -> None:
        for own, saved in zip(self.averages, averages, strict=True):
            own.copy_(saved)

    @torch.no_grad()
    def swap(self) -> None:
        """Change places with the parameters; a second call undoes it."""
        for average, parameter in zip(self.averages, self._parameters, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)
