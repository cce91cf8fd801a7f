"""Stable Diffusion as a loop over denoising steps that rows join and leave."""

import os

# PyTorch's CPU threads (GNU OpenMP) wait for each other by spinning. As soon as another process wants the
# cores, that costs most of the machine: two engines on two cores drew 30 times slower. Without any
# spinning a lone engine is 1.6 times slower; so it spins for a moment only (10,000 turns: a lone engine
# loses a tenth, and two share the cores fairly). It must be said before torch is loaded; who knows better
# sets either variable.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
