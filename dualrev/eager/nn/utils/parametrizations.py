"""Weights of given norm: ``torch.nn.utils.parametrizations``."""

from __future__ import annotations

from typing import Any

from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn import functional as F  # noqa: N812
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.utils.orthogonal_maps import orthogonal as orthogonal
from dualrev.eager.nn.utils.parametrize import register_parametrization
from dualrev.eager.ops.sampling import randn


def norm_except(v: Tensor, dim: int) -> Tensor:
    """The norms over all dimensions but one; over all, for -1."""
    if dim == -1:
        return v.norm(2)
    shape = [n if d == dim else 1 for d, n in enumerate(v.shape)]
    return v.movedim(dim, 0).reshape(v.shape[dim], -1).norm(2, 1).reshape(shape)


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except(weight_v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The norm and the direction."""
        return norm_except(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Learn the norm of a weight and its direction apart, for each entry of a dimension [Salimans16].

    >>> from dualrev import eager as torch
    >>> layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2))
    >>> layer.parametrizations.weight.original0.shape
    torch.Size([2, 1])
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def from_older(state_dict: Any, prefix: str, *_: Any) -> None:
        for i, suffix in enumerate("gv"):
            key = f"{prefix}{name}_{suffix}"
            if key in state_dict:
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(from_older)
    return module


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight as a matrix, with a dimension as its rows."""
    return weight.movedim(dim, 0).flatten(1)


def power_steps(matrix: Tensor, u: Tensor, v: Tensor, steps: int, eps: float) -> None:
    """Bring ``u`` and ``v``, in place, nearer to the first singular vectors."""
    with no_grad():
        for _ in range(steps):
            u.copy_(F.normalize(matrix @ v, dim=0, eps=eps))
            v.copy_(F.normalize(matrix.T @ u, dim=0, eps=eps))


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12):
        super().__init__()
        n = weight.ndim
        if not -n <= dim < n:
            raise IndexError(f"Dimension out of range (expected to be in range of [-{n}, {n - 1}] but got {dim})")
        if n_power_iterations <= 0:
            raise ValueError(f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}")
        self.dim, self.eps = dim % n, eps
        if n > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight.detach(), self.dim)
            for name, size in (("_u", matrix.shape[0]), ("_v", matrix.shape[1])):
                self.register_buffer(name, F.normalize(randn(size, dtype=weight.dtype), dim=0, eps=eps))
            power_steps(matrix, self._u, self._v, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_steps(matrix, self._u, self._v, self.n_power_iterations, self.eps)
        # Copies, so that two forward passes can go before one backward pass.
        u, v = self._u.clone(), self._v.clone()
        return weight / (u @ (matrix @ v))

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
                  ) -> Module:
    """Divide a weight by its largest singular value, which steps of the power method follow in training [Miyato18]."""
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if dim is None:
        transposed = any(c.__name__.startswith("ConvTranspose") for c in type(module).__mro__)
        dim = 1 if transposed else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))
