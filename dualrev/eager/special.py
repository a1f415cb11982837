"""Special functions under PyTorch's names: ``torch.special``."""

from __future__ import annotations

from collections.abc import Callable

from dualrev.eager.core.annotations import DType
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Operand, Tensor
from dualrev.eager.nn import functional as _functional
from dualrev.eager.ops import bessel, polynomials
from dualrev.eager.ops.outputs import with_out
from dualrev.eager.ops.registry import FUNCTIONS, renamed
from dualrev.eager.ops.special_functions import OF_ONE, OF_TWO


def _writing(fun: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The function, under a name, which writes into ``out`` where it is given."""
    found = with_out(fun, f"special_{name}")
    return found if found is fun else renamed(found, name, fun.__doc__ or "")


def _named(name: str, registered: str | None = None) -> Callable[..., Tensor]:
    return _writing(FUNCTIONS[registered or name], name)


def _of_one(name: str) -> Callable[..., Tensor]:
    op = OF_ONE[name]

    def of(input: Tensor) -> Tensor:  # noqa: A002
        if not isinstance(input, Tensor):
            raise TypeError(f"special_{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
        return apply(op, (input,))

    return _writing(renamed(of, name, f"{name} of each entry."), name)


def _of_two(name: str) -> Callable[..., Tensor]:
    op = OF_TWO[name]

    def of(input: Operand, other: Operand) -> Tensor:  # noqa: A002
        return apply(op, (input, other))

    return _writing(renamed(of, name, f"{name} of each pair of entries."), name)


entr, i0, i0e, i1, i1e = (_of_one(name) for name in ("entr", "i0", "i0e", "i1", "i1e"))
ndtr, log_ndtr, ndtri, sinc = (_of_one(name) for name in ("ndtr", "log_ndtr", "ndtri", "sinc"))
xlog1py, zeta, gammainc, gammaincc = (_of_two(name) for name in ("xlog1py", "zeta", "igamma", "igammac"))
expit, logit, erf, erfc, erfinv = (_named(a, b) for a, b in (
    ("expit", "sigmoid"), ("logit", None), ("erf", None), ("erfc", None), ("erfinv", None)))
exp2, expm1, log1p, round = (_named(name) for name in ("exp2", "expm1", "log1p", "round"))  # noqa: A001
gammaln, digamma, psi, polygamma, multigammaln = (_named(a, b) for a, b in (
    ("gammaln", "lgamma"), ("digamma", None), ("psi", "digamma"), ("polygamma", None), ("multigammaln", "mvlgamma")))
xlogy, logsumexp = _named("xlogy"), _named("logsumexp")


def softmax(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The exponentials along a dimension, divided by their sum."""
    return _functional.softmax(input, dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:  # noqa: A002
    """The logarithm of ``softmax``."""
    return _functional.log_softmax(input, dim, dtype=dtype)


erfcx = _writing(polynomials.erfcx, "erfcx")
modified_bessel_i0, modified_bessel_i1 = _writing(i0, "modified_bessel_i0"), _writing(i1, "modified_bessel_i1")
globals().update({name: _writing(bessel.bessel(name), name) for name in bessel.NAMES})
globals().update({name: _writing(polynomials.polynomial(name), name) for name in polynomials.NAMES})
