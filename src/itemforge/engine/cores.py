"""Parts of one batch side by side, each on CPU cores of its own.

OpenMP shares out every single operation and then waits for the slowest core, several hundred times in one
UNet call; where a batch has parts, they need to wait for each other only once.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor


class Cores:
    """`count` cores to share out among the parts of a batch; 1 leaves every call whole."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, "cores") if count > 1 else None

    def __call__(self, work: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        """`work(*batch)`, where `work` treats the places (first dimension) of its tensors independently.

        Raises:
            Exception: what `work` raised, after every part has ended.
        """
        parts = min(self._count, len(batch[0]))
        if self._pool is None or parts < 2:
            return work(*batch)
        threads = self._count // parts
        pieces = zip(*(tensor.tensor_split(parts) for tensor in batch), strict=True)
        running = [self._pool.submit(_on_some, threads, work, piece) for piece in pieces]
        wait(running)  # a part that still runs would hold memory that the next try needs
        return torch.cat([part.result() for part in running])


def _on_some(threads: int, work: Callable[..., Tensor], piece: tuple[Tensor, ...]) -> Tensor:
    torch.set_num_threads(threads)  # of this thread alone, as inference mode is
    with torch.inference_mode():
        return work(*piece)
