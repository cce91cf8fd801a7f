"""What the stages have in common: AdamW at a rate that follows the step, clipped, averaged, and its whole state."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from itemforge.training.config import Steps
from itemforge.training.ema import Ema
from itemforge.training.stage import rate_at

_CLIP = 1.0
_WEIGHT_DECAY = 0.01


@contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Arithmetic in `precision` where it helps; the weights stay float32."""
    if precision == torch.float32:
        yield
        return
    with torch.autocast(device.type, precision), attention(device):
        yield


def attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention for half precision.

    On a CPU the fused attention of torch 2.13 goes backward seven times slower in bfloat16 than in float32.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


class Learner:
    """Updates some modules' parameters; `finish` does it after a loss's backward pass."""

    def __init__(self, modules: Iterable[nn.Module], config: Steps, ema: float = 0.999) -> None:
        self._config = config
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=_WEIGHT_DECAY, fused=True
        )
        self.ema = Ema(self._parameters, ema)

    def finish(self, loss: Tensor, step: int) -> float:
        """One step of the optimizer; the gradient's norm before it was clipped."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._parameters, _CLIP))
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * rate_at(self._config, step)
        self._optimizer.step()
        self.ema.update(step)
        return norm

    def state(self) -> dict[str, Any]:
        parameters = [p.detach() for p in self._parameters]
        return {
            "parameters": parameters,
            "averages": self.ema.averages,
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for own, saved in zip(self._parameters, state["parameters"], strict=True):
                own.copy_(saved)
        self.ema.restore(state["averages"])
        self._optimizer.load_state_dict(state["optimizer"])


class Learning:
    """What a stage with one learner keeps between two steps."""

    learner: Learner
    done: int

    def state(self) -> dict[str, Any]:
        return {"done": self.done, **self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.learner.restore(state)
        self.done = int(state["done"])
