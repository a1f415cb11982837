"""Settings of PyTorch's back ends, which programs set and ask: ``torch.backends``.

They are kept and change nothing: jax compiles every operation, and its results are the same in each run.
"""

from __future__ import annotations

from typing import Any


class _Backend:
    """One back end: settings, and whether it is there."""

    def __init__(self, available: bool, **settings: Any):
        self._available = available
        vars(self).update(settings)

    def is_available(self) -> bool:
        """Whether this process has it."""
        return self._available

    is_built = is_available


class _Cpu(_Backend):
    def get_cpu_capability(self) -> str:
        """The vector instructions that PyTorch would use."""
        return "DEFAULT"


class _Cudnn(_Backend):
    def version(self) -> int | None:
        """None: cuDNN is jax's."""
        return None


cpu = _Cpu(True)
cudnn = _Cudnn(False, enabled=True, deterministic=False, benchmark=False, benchmark_limit=10, allow_tf32=True)
cuda = _Backend(False, matmul=_Backend(False, allow_tf32=False, allow_fp16_reduced_precision_reduction=True,
                                       allow_bf16_reduced_precision_reduction=True))
mps = _Backend(False)
mkl = _Backend(False)
mkldnn = _Backend(False, enabled=True, allow_tf32=True)
openmp = _Backend(False)
opt_einsum = _Backend(False, enabled=True, strategy="auto")
