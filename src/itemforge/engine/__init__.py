"""Stable Diffusion as a loop over denoising steps that rows join and leave."""

import os

# PyTorch's CPU threads (OpenMP) wait for each other by spinning. As soon as another process wants the
# cores, that costs most of the machine: two engines on two cores drew 18 times slower. It must be said
# before torch is loaded; who knows better sets the variable.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
