"""Recognises that memory ran out."""

from __future__ import annotations

import torch


def is_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out: Python's, torch's on a device, or torch's CPU allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "out of memory" in str(error))
