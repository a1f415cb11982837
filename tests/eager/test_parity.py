"""Values and first and second derivatives of single operations, also at kinks, are those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from against_torch import in_both

pytestmark = pytest.mark.thorough

ANYWHERE = [-2.0, -1.0, -0.5, 0.0, 0.3, 1.0, 2.5, 3.0]
INSIDE = [-0.9, -0.5, 0.2, 0.7]
POSITIVE = [0.1, 0.5, 1.0, 4.0]
ONE = dict(
    dict.fromkeys(["neg", "exp", "exp2", "expm1", "sin", "cos", "tan", "atan", "sinh", "cosh", "tanh", "asinh", "sigmoid", "square",
                   "abs", "sign", "relu", "erf", "erfc", "floor", "ceil", "round", "trunc", "frac"], ANYWHERE),
    **dict.fromkeys(["asin", "acos", "atanh", "erfinv"], INSIDE),
    **dict.fromkeys(["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma"], POSITIVE),
)


def derivatives(t: Any, f: Callable[..., Any], *xs: Any) -> list[Any]:
    """The value of a function, its gradients, and the gradients of their squares."""
    xs = tuple([t.tensor(x, dtype=t.float64, requires_grad=True) for x in xs])
    out = f(*xs)
    results = [out]
    if out.requires_grad:
        first = t.autograd.grad((out * (out.detach() * 0.3 + 1)).sum(), xs, create_graph=True, allow_unused=True)
        results += first
        total = sum((g ** 2).sum() for g in first if g is not None)
        if getattr(total, "requires_grad", False):
            results += t.autograd.grad(total, xs, allow_unused=True, materialize_grads=True)
        else:  # piecewise linear: whether the zeros are part of the graph is not compared
            results += [t.zeros_like(x) for x in xs]
    return results


@pytest.mark.parametrize("name", ONE)
def test_one_operand(name: str) -> None:
    in_both(lambda t: derivatives(t, getattr(t, name), ONE[name]), 1e-6)


TWO: dict[str, Callable[[Any, Any, Any], Any]] = dict(
    add=lambda t, x, y: x + 2 * y,
    sub=lambda t, x, y: t.sub(x, y, alpha=3),
    mul=lambda t, x, y: x * y,
    div=lambda t, x, y: x / y,
    maximum=lambda t, x, y: t.maximum(x, y),
    minimum=lambda t, x, y: t.minimum(x, y),
    atan2=lambda t, x, y: t.atan2(x, y),
    pow=lambda t, x, y: x.abs().add(0.5) ** y,
    remainder=lambda t, x, y: x % y,
    hypot=lambda t, x, y: t.hypot(x, y),
    logaddexp=lambda t, x, y: t.logaddexp(x, y),
    where=lambda t, x, y: t.where(x > y, x * y, y),
    lerp=lambda t, x, y: t.lerp(x, y, 0.3),
    rpow=lambda t, x, y: 2.0 ** x * y,
    rsub=lambda t, x, y: 1 - x / y,
    broadcast=lambda t, x, y: x[:, None] * y + y[:, None],
    clamp=lambda t, x, y: x.clamp(-1, 1) * y.clamp(min=1),
    masked=lambda t, x, y: x.masked_fill(x > 0, 2.0) * y,
    addcmul=lambda t, x, y: t.addcmul(x, x, y, value=2),
    addcdiv=lambda t, x, y: t.addcdiv(x, x, y, value=2),
    outer=lambda t, x, y: t.outer(x, y),
    dot=lambda t, x, y: x.dot(y),
    cat=lambda t, x, y: t.cat([x, y, x]),
    stack=lambda t, x, y: t.stack([x, y], dim=1),
    einsum=lambda t, x, y: t.einsum("i,j->ij", x, y),
    kron=lambda t, x, y: t.kron(x, y),
    index=lambda t, x, y: x[t.tensor([0, 0, 2])] * y[1::2][:3],
    mask=lambda t, x, y: x[y > 0],
    put=lambda t, x, y: x.scatter(0, t.tensor([1, 3]), y[:2]),
    put_add=lambda t, x, y: x.scatter_add(0, t.tensor([1, 1, 0]), y[:3]),
)


@pytest.mark.parametrize("name", TWO)
def test_two_operands(name: str) -> None:
    in_both(lambda t: derivatives(t, lambda x, y: TWO[name](t, x, y), ANYWHERE, [1.5, -1.0, 2.0, 0.5, 0.3, -2.0, 1.0, 3.0]), 1e-6)


MATRIX = [[0.3, -1.2, 2.0], [1.5, 0.4, -0.7], [2.2, 2.2, 0.1]]
SHAPES: dict[str, Callable[[Any, Any], Any]] = dict(
    sum=lambda t, x: x.sum(0),
    sum_keep=lambda t, x: x.sum((0, 1), keepdim=True),
    mean=lambda t, x: x.mean(-1),
    prod=lambda t, x: x.prod(1),
    var=lambda t, x: x.var(1),
    std=lambda t, x: x.std(0, correction=0),
    std_all=lambda t, x: x.std(),
    amax=lambda t, x: x.amax(1),
    max_dim=lambda t, x: x.max(1).values,
    max_all=lambda t, x: x.max(),
    min_dim=lambda t, x: x.min(0)[0],
    norm=lambda t, x: x.norm(),
    norm_one=lambda t, x: x.norm(p=1, dim=0),
    norm_three=lambda t, x: x.norm(3),
    logsumexp=lambda t, x: x.logsumexp(1),
    cumsum=lambda t, x: x.cumsum(0),
    cumprod=lambda t, x: x.cumprod(1),
    sort=lambda t, x: x.sort(1)[0],
    topk=lambda t, x: x.topk(2)[0],
    softmax=lambda t, x: t.softmax(x, 1),
    view=lambda t, x: x.view(9)[2:7],
    permute=lambda t, x: x.permute(1, 0) * x,
    expand=lambda t, x: x[:, :1].expand(3, 4),
    squeeze=lambda t, x: x[None].squeeze(0),
    flip=lambda t, x: x.flip(0) * x,
    roll=lambda t, x: x.roll(1, 0) * x,
    tril=lambda t, x: x.tril(),
    diag=lambda t, x: x.diag(),
    diagonal=lambda t, x: x.diagonal(),
    trace=lambda t, x: x.trace(),
    repeat=lambda t, x: x.repeat(2, 1),
    gather=lambda t, x: x.gather(1, t.tensor([[0, 2], [1, 1], [2, 0]])),
    split=lambda t, x: x.split(2)[0] * x.chunk(2)[0],
    unbind=lambda t, x: x.unbind(1)[2],
    index_select=lambda t, x: x.index_select(0, t.tensor([2, 0, 2])),
    inverse=lambda t, x: t.linalg.inv(x),
    det=lambda t, x: t.linalg.det(x),
    solve=lambda t, x: t.linalg.solve(x, x[:, 0]),
    matmul=lambda t, x: x @ x.T,
    bmm=lambda t, x: t.bmm(x[None], x[None]),
    mv=lambda t, x: x @ x[0],
    addmm=lambda t, x: t.addmm(x, x, x, beta=0.5),
    ellipsis=lambda t, x: x[..., 0, None] * x[-1],
    narrow=lambda t, x: x.narrow(1, 1, 2),
    float=lambda t, x: x.float().double(),
    flatten=lambda t, x: x.flatten(),
    movedim=lambda t, x: x.movedim(0, 1) * x,
)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_sums(name: str) -> None:
    in_both(lambda t: derivatives(t, lambda x: SHAPES[name](t, x), MATRIX), 1e-5)
