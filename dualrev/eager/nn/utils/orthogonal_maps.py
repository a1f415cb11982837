"""Orthogonal and unitary weights: ``orthogonal`` of ``torch.nn.utils.parametrizations``."""

from __future__ import annotations

from typing import Any

from dualrev.eager.core.dtype_facts import finfo
from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.utils.parametrize import register_parametrization
from dualrev.eager.ops.decompositions import EXPM
from dualrev.eager.ops.joining import cat
from dualrev.eager.ops.linear_algebra import SOLVE
from dualrev.eager.ops.registry import FUNCTIONS
from dualrev.eager.ops.sampling import randn

_MAPS = ("matrix_exp", "cayley", "householder")


def _signs_first(square: Tensor) -> Tensor:
    """The orthogonal factor of ``QR`` for which the diagonal of ``R`` is not negative."""
    reflected, tau = FUNCTIONS["geqrf"](square)
    return FUNCTIONS["orgqr"](reflected, tau) * reflected.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


def _is_orthogonal(q: Tensor) -> bool:
    n, k = q.shape[-2:]
    return FUNCTIONS["allclose"](q.mH @ q, FUNCTIONS["eye"](k, dtype=q.dtype), atol=10.0 * n * finfo(q.dtype).eps)


class _Orthogonal(Module):
    """A matrix with orthonormal columns, or rows where there are fewer: a map of skew-symmetric matrices or of reflections, times a
    ``base`` where there is one."""

    base: Any

    def __init__(self, weight: Tensor, kind: str, has_base: bool):
        super().__init__()
        if weight.is_complex() and kind == "householder":
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape, self.kind, self.has_base = weight.shape, kind, has_base
        if has_base:
            self.register_buffer("base", None)

    def forward(self, x: Tensor) -> Tensor:
        is_wide = x.shape[-2] < x.shape[-1]
        tall = x.mT if is_wide else x
        q = self._reflections(tall) if self.kind == "householder" else self._of_skew(tall)
        q = self.base @ q if self.has_base else q
        return q.mT if is_wide else q

    def _reflections(self, tall: Tensor) -> Tensor:
        """The product of the reflections by the columns below the diagonal, whose signs stand on it [GolubVanLoan2013, 5.1]."""
        below = tall.tril(-1)
        q = FUNCTIONS["orgqr"](below, 2.0 / (1.0 + (below * below).sum(-2)))
        return q * tall.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)

    def _of_skew(self, tall: Tensor) -> Tensor:
        """The exponential of a skew-symmetric matrix, or its Cayley transform ``(I - A/2)^-1 (I + A/2)`` [LezcanoCasado2019]."""
        n, k = tall.shape[-2:]
        lower = tall.tril()
        square = lower if n == k else cat([lower, lower.new_zeros((*lower.shape[:-1], n - k))], -1)
        skew = square - square.mH
        if self.kind == "matrix_exp":
            q = apply(EXPM, (skew,))
        else:
            one = FUNCTIONS["eye"](n, dtype=skew.dtype)
            q = apply(SOLVE, (one - 0.5 * skew, one + 0.5 * skew))
        return q if n == k else q[..., :k]

    def right_inverse(self, q: Tensor) -> Tensor:
        """The parameter whose weight is this matrix; the matrix itself becomes the base where there is one."""
        if q.shape != self.shape:
            raise ValueError(f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {q.shape}.")
        with no_grad():
            is_wide = q.shape[-2] < q.shape[-1]
            tall = q.mT if is_wide else q
            if self.has_base:
                return self._based(q, tall)
            if self.kind != "householder":
                raise NotImplementedError("It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                                          "use_trivialization=False.")
            reflected, tau = FUNCTIONS["geqrf"](tall)
            # Where LAPACK takes no reflection, ours turns the sign of that column.
            signs = reflected.diagonal(dim1=-2, dim2=-1).sign()
            signs = FUNCTIONS["where"](tau == 0, -signs, signs)
            found = FUNCTIONS["diagonal_scatter"](reflected, signs, dim1=-2, dim2=-1)
            return found.mT if is_wide else found

    def _based(self, q: Tensor, tall: Tensor) -> Tensor:
        """Make the matrix, with further columns, the base; the parameter of the identity."""
        n, k = tall.shape[-2:]
        if n == k:
            self.base = tall.clone() if _is_orthogonal(tall) else _signs_first(tall)
        else:
            self.base = _signs_first(cat([tall, randn((*tall.shape[:-2], n, n - k), dtype=tall.dtype)], -1))
        # The reflections of zeros below the diagonal are -1 times the identity.
        return FUNCTIONS["diagonal_scatter"](FUNCTIONS["zeros_like"](q), q.new_full((*q.shape[:-2], min(n, k)), -1.0), dim1=-2, dim2=-1)


def orthogonal(module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True) -> Module:
    """Keep a weight orthogonal, or unitary, whatever its parameter is [LezcanoCasado2019].

    Args:
      module: has the weight, a matrix or a batch of them, by this ``name``.
      orthogonal_map: "matrix_exp", "cayley" or "householder"; by default the first for square and complex matrices, and the last
        otherwise.
      use_trivialization: start from the weight as it is, and learn what it is multiplied by.

    Raises:
      ValueError: there is no such weight, it is no matrix, or the map is another.

    >>> from dualrev import eager as torch
    >>> layer = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(3, 3))
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(3), atol=1e-5)
    True
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] or weight.is_complex() else "householder"
    if orthogonal_map not in _MAPS:
        raise ValueError(f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}')
    return register_parametrization(module, name, _Orthogonal(weight, orthogonal_map, use_trivialization), unsafe=True)
