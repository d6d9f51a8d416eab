"""Recognises that memory ran out."""

from __future__ import annotations

import torch

SAYINGS = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""How torch says so without an error of its own: a device, the CPU's allocator on Windows and elsewhere, CUDA's
libraries."""


def is_memory(error: BaseException) -> bool:
    """Return True if an error says that memory ran out: Python's, torch's on a device, or torch's CPU allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in SAYINGS)
