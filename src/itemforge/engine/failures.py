"""What an exception during tensor work means for the rows and for the process."""

import torch

from itemforge.errors import ItemForgeError, RetryableError

#: Parts of messages of RuntimeErrors by which PyTorch and its libraries say that memory ran out.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
#: After one of these the CUDA context is lost: every later call in this process fails as well.
_STICKY = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error", "device-side assert")


def out_of_memory(error: Exception) -> bool:
    """True for a failed allocation on any device; fewer rows may fit."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _OUT_OF_MEMORY)


def sticky(error: Exception) -> bool:
    """True for a device error that only a new process gets over."""
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _STICKY)


def retryable(error: Exception) -> bool:
    """Our own errors know; anything unexpected may be this machine's fault, and tries are bounded."""
    return isinstance(error, RetryableError) or not isinstance(error, ItemForgeError)


def reason(error: Exception) -> str:
    """The text for the row's owner."""
    if isinstance(error, ItemForgeError):
        return str(error)
    return f"the engine failed on this row: {type(error).__name__}: {str(error)[:300]}"
