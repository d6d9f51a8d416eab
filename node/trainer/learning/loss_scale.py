"""The factor that keeps float16 gradients from vanishing (arXiv 1710.03740, part 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HIGHEST, STEADY = 65_536.0, 200
"""The factor at the start and at most; steps without overflow after which a halved one is doubled again."""


class LossScale:
    """A factor on the loss, taken off the gradients again; 1 (nothing to do) unless arithmetic is float16."""

    def __init__(self, *, needed: bool) -> None:
        self.value = HIGHEST if needed else 1.0
        self._needed = needed
        self._good = 0

    def up(self, loss: Tensor) -> Tensor:
        """Return the loss to be differentiated."""
        return loss * self.value if self._needed else loss

    def down(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Divide the gradients by the factor, in place."""
        if self._needed:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= self.value

    def overflowed(self) -> bool:
        """Halve the factor after gradients that were not finite; return whether that may have been the cause."""
        halved = self._needed and self.value > 1
        if halved:
            self.value, self._good = self.value / 2, 0
        return halved

    def stepped(self) -> None:
        """Note a good step."""
        self._good += 1
        if self._needed and self._good % STEADY == 0:
            self.value = min(2 * self.value, HIGHEST)
