"""What ITEMFORGE_QUALITY allows: which approximations, measured and labelled, a worker may draw with.

`exact` is the diffusers pipeline's picture. What the others cost and give stands in docs/engine.md.
"""

from dataclasses import dataclass
from typing import Literal

from itemforge.contract import Scheduler

Quality = Literal["exact", "standard", "draft"]


@dataclass(frozen=True)
class Approximation:
    """`guided_from` and `guided_until` are parts of a row's steps, between which guidance is applied.

    `coarse`: bfloat16 may be chosen on a CPU. `sampler` and `steps_factor`: drawn with this sampler in so
    many times the steps that were asked for, but not in fewer than `least_steps` of them.
    """

    coarse: bool = False
    guided_from: float = 0.0
    guided_until: float = 1.0
    sampler: Scheduler | None = None
    steps_factor: float = 1.0
    least_steps: int = 1

    def guides(self, step: int, steps: int) -> bool:
        """Whether guidance is applied in the step after `step` of `steps`."""
        return self.guided_from * steps <= step < self.guided_until * steps

    def steps(self, asked: int) -> int:
        return max(min(asked, self.least_steps), round(asked * self.steps_factor))


EXACT = Approximation()
LEVELS: dict[Quality, Approximation] = {"exact": EXACT, "standard": EXACT, "draft": EXACT}
