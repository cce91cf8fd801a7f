"""What ITEMFORGE_QUALITY allows: which approximations a worker may draw with.

`exact` is the diffusers pipeline's picture. What the others give, and what they cost in the picture, was
measured with `bench/quality.py`; docs/engine.md has the figures. The recipe names the level, and the same
level draws the same picture again.
"""

from dataclasses import dataclass
from typing import Literal

Quality = Literal["exact", "standard", "draft"]


@dataclass(frozen=True)
class Approximation:
    """`coarse`: bfloat16 may be chosen on a CPU. A row is drawn in `steps_factor` times the steps that were
    asked for, but not in fewer than `least_steps` of them.
    """

    coarse: bool = False
    steps_factor: float = 1.0
    least_steps: int = 1

    def steps(self, asked: int) -> int:
        """How many steps a row takes that asked for so many."""
        return max(min(asked, self.least_steps), round(asked * self.steps_factor))


LEVELS: dict[Quality, Approximation] = {
    "exact": Approximation(),
    "standard": Approximation(coarse=True, steps_factor=0.6, least_steps=15),
    "draft": Approximation(coarse=True, steps_factor=0.4, least_steps=8),
}
EXACT = LEVELS["exact"]
