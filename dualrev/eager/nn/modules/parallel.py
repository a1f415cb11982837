"""Several devices: on one, a wrapper that calls its module."""

from __future__ import annotations

from typing import Any

from dualrev.eager.nn.modules.module import Module


class DataParallel(Module):
    """A module under the name ``module``, as programs for several devices wrap it; it is called on the device where it is."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0):
        super().__init__()
        self.module, self.dim = module, dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
