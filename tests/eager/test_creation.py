"""Functions that make tensors take what PyTorch's take, by position and by name, and refuse the rest in its words."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from against_torch import in_both, message

from dualrev import eager as torch

#: Values are the same in both libraries.
VALUES = """
zeros(2, 3); zeros((2, 3)); zeros([2, 3]); zeros(size=(2, 3)); zeros(size=[2]); zeros(t.Size([2])); zeros(()); zeros([])
zeros(size=()); zeros(2, dtype=t.int64); zeros(2, dtype=float if x64 else t.float32); zeros(2, device="cpu")
zeros(2, device=t.device("cpu"))
zeros(2, layout=t.strided, pin_memory=False, out=None, dtype=None, device=None, requires_grad=False); zeros(2, requires_grad=True)
zeros(np.int64(3)); zeros(t.tensor(3), 2); zeros((t.tensor(3), 2)); zeros(0, 3); zeros(2, out=t.empty(0))
zeros(2, out=t.ones(2, dtype=t.int64)); zeros(2, out=t.ones(2), requires_grad=True); ones(2, 3); ones(size=(2,), dtype=t.bool)
ones(2, out=t.zeros(2)); ones((2,), requires_grad=True, dtype=t.float16); full((2,), 1); full((2,), 1.5); full((2,), True)
full((2,), 1j); full(size=(2,), fill_value=1, dtype=t.float32); full((), 2); full((2,), t.tensor(3.))
full([2, 2], 7., requires_grad=True); full((2,), 2, out=t.zeros(2)); full((2,), np.float32(2)); zeros_like(t.ones(2))
zeros_like(input=t.ones(2), dtype=t.int32); ones_like(t.zeros(2), memory_format=t.preserve_format)
zeros_like(t.ones(2, dtype=t.int32), layout=t.strided, device="cpu", pin_memory=False); full_like(t.ones(2), 2)
full_like(t.ones(2), fill_value=2, dtype=t.int64); full_like(input=t.ones(2), fill_value=2, requires_grad=True)
ones(2).new_zeros(2, 3); ones(2).new_zeros((2, 3)); ones(2).new_zeros(size=(2,)); ones(2).new_ones((2,), dtype=t.int64)
ones(2).new_full((2,), 3); ones(2).new_full(size=(2,), fill_value=3, dtype=t.int32); ones(2, dtype=t.int64).new_full((2,), 2.5)
ones(2).new_tensor([1, 2]); ones(2).new_tensor(data=3, dtype=t.int32); ones(2).new_tensor([1], requires_grad=True); arange(5)
arange(end=5); arange(1, 5); arange(1, end=5, step=2); arange(start=1, end=5); arange(0, 1, 0.3, requires_grad=True)
arange(5, 1, -2); arange(3., dtype=t.int64); arange(t.tensor(4)); arange(True); arange(0, 1, 0.1, out=t.empty(0)); arange(0)
range(0, 3); range(start=0, end=1, step=0.25); range(0, 3, out=t.empty(0)); range(3, 0, -1, dtype=t.int64); linspace(0, 1, 5)
linspace(start=0, end=1, steps=3); linspace(0, 5, steps=3, dtype=t.int64); linspace(0, 1, 1); linspace(0, 1, 0)
linspace(t.tensor(0.), t.tensor(1.), 3); linspace(t.tensor(0., requires_grad=True), 1, 3); linspace(0, 1j, 3); linspace(3, -3, 4)
linspace(0, 1, 3, out=t.empty(3), requires_grad=True); linspace(-5, 5, 4, dtype=t.int64); logspace(0, 2, 3); logspace(0, 2, 3, 2)
logspace(start=0, end=2, steps=3, base=2.); logspace(0, t.tensor(2.), 3, requires_grad=True); eye(2); eye(2, 3)
eye(n=2, m=3, dtype=t.int64); eye(2, requires_grad=True); eye(2, out=t.empty(0)); eye(0); tril_indices(3, 3)
tril_indices(row=3, col=4, offset=-1, dtype=t.int32); triu_indices(3, 4, 1); triu_indices(2, 2, device="cpu")
meshgrid(t.arange(2), t.arange(3), indexing="ij"); meshgrid([t.arange(2), t.arange(3)], indexing="xy"); vander(t.arange(3.))
cartesian_prod(t.arange(2), t.arange(3)); cartesian_prod(t.arange(2)); vander(x=t.arange(3), N=2, increasing=True)
combinations(t.arange(4.)); combinations(t.arange(3), r=3); combinations(t.arange(3), 2, True); combinations(t.arange(3), 4)
complex(t.ones(2), imag=t.ones(2)); complex(real=t.ones(2), imag=t.ones(2)); polar(t.ones(2), t.ones(2))
polar(abs=t.ones(1), angle=t.ones(1)); tensor([1, 2]); tensor(data=[1., 2.], dtype=t.int64)
tensor(3, device="cpu", pin_memory=False); tensor(1., requires_grad=True)
tensor([1., 2.], dtype=t.float16, device=t.device("cpu"), requires_grad=True); tensor(np.ones(2, np.float32)); tensor([])
tensor(True); as_tensor([1, 2]); as_tensor(data=[1., 2.], dtype=t.int64, device="cpu"); asarray([1.], requires_grad=True)
asarray(obj=3, copy=True); asarray(t.ones(2), dtype=t.int32); from_numpy(np.ones((2, 2), np.float32))
asarray(t.ones(2, requires_grad=True)); Tensor([1, 2]); Tensor([[1, 2], [3, 4]]); Tensor(t.ones(2, dtype=t.int64))
Tensor(np.ones((2, 2))); Tensor(); Tensor(data=[1.]); LongTensor([1, 2]); FloatTensor([[1, 2]]); IntTensor((1, 2))
BoolTensor([True, False])
"""
#: The shape and dtype are the same, and whether it requires grad.
KINDS = """
empty(2, 3); empty((2,)); empty(size=(2, 3), dtype=t.int64); empty(2, memory_format=t.contiguous_format, pin_memory=False)
empty_like(t.ones(2), memory_format=t.preserve_format); empty_strided((2, 3), (3, 1)); empty_permuted((2, 3), (1, 0))
ones(2).new_empty(2); ones(2).new_empty(size=(2, 3), dtype=t.int32, requires_grad=False); Tensor(2, 3); Tensor(3)
Tensor(t.Size([2])); Tensor(size=(2, 3)); FloatTensor(2, 3); LongTensor(3); randn(size=(), requires_grad=True)
randn((), requires_grad=True); randn(()); randn(2, 3); randn([2, 3]); randn(t.Size((2,)))
randn(size=(2, 3), dtype=t.float16, device="cpu", layout=t.strided, pin_memory=False); randn(2, generator=g)
randn(2, generator=None); randn(2, out=t.empty(0)); randn(2, dtype=t.complex64); rand(2, 3); rand(size=[2])
rand(2, dtype=t.complex64); rand((2,), generator=g); rand(2, requires_grad=True); rand(2, out=t.empty(2))
rand_like(t.ones(2), generator=g); randn_like(input=t.ones(2), requires_grad=True)
randn_like(t.ones(2), dtype=t.float16, memory_format=t.preserve_format); randint(5, (2,)); randint(high=5, size=(2,))
randint(low=0, high=5, size=(2,)); randint(3, 5, [2]); randint(5, size=()); randint(0, 5, (2,), dtype=t.float32, requires_grad=True)
randint(0, 5, (2,), generator=g, dtype=t.uint8, device="cpu"); randint(3, (2,), out=t.empty(0)); randint_like(t.ones(2), 5)
randint_like(t.ones(2), 2, 5); randint_like(t.ones(2), low=2, high=5); randint_like(t.ones(2), t.tensor(4), dtype=t.int32)
randperm(4); randperm(n=4, dtype=t.int32); randperm(4, generator=g, device="cpu"); randperm(0)
randperm(4, dtype=t.float32, requires_grad=True); normal(0., 1., (2,)); normal(0, 1, size=(2,)); normal(t.zeros(3))
normal(mean=0., std=1., size=(2,), dtype=t.float16, generator=g); normal(t.zeros(3), 1.); normal(t.zeros(2, 1), t.ones(3))
normal(0., t.ones(3)); normal(mean=t.zeros(3), std=t.ones(3), generator=g); normal(t.zeros(3, requires_grad=True), t.ones(3))
normal(0., 1., (2,), requires_grad=True); normal(t.zeros(2), 1., out=t.empty(2)); bernoulli(t.full((3,), .5))
bernoulli(input=t.full((3,), .5), generator=g); bernoulli(t.ones(3), p=.5); ones(3).bernoulli(); ones(3).bernoulli(.5)
bernoulli(t.full((3,), .5, requires_grad=True)); bernoulli(t.ones(2), out=t.empty(2)); multinomial(t.ones(3), 2)
ones(3).multinomial(1); multinomial(t.ones(2, 3), num_samples=4, replacement=True, generator=g)
multinomial(t.tensor([1., 0., 0.]), 2); poisson(t.ones(3)); poisson(input=t.ones(3, requires_grad=True), generator=g)
ones(2).normal_(0, 1); ones(2).normal_(mean=0, std=1, generator=g); ones(2).normal_(); ones(2).uniform_(2, 3); ones(2).uniform_()
ones(2).uniform_(**{"from": 2, "to": 3}); ones(2).random_(); ones(2).random_(5); ones(2).random_(2, 5); ones(2).random_(to=5)
ones(2, dtype=t.int64).random_(); ones(2, dtype=t.bool).random_(); ones(2).random_(**{"from": 2, "to": 5}); ones(2).bernoulli_()
ones(2).bernoulli_(0.3); ones(2).bernoulli_(p=t.rand(2), generator=g); ones(2, dtype=t.int64).bernoulli_(.5); ones(2).exponential_()
ones(2).exponential_(lambd=2, generator=g); ones(2).geometric_(.5); ones(2, dtype=t.int64).geometric_(p=.5); ones(2).log_normal_()
ones(2).log_normal_(mean=0, std=1); ones(2).cauchy_(); ones(2).cauchy_(median=0, sigma=1)
"""
#: Refused, with the same type of error and the same first line.
REFUSED = """
zeros(); zeros(size=3); zeros((2, 2.)); zeros(2, 2.); zeros(True); zeros(None); zeros(size=None); zeros((2,), (3,)); zeros("a")
zeros(2, size=(2,)); zeros((2,), size=(2,)); zeros(-1); zeros(2, dtype="float32"); zeros(2, dtype=3); zeros(2, device=3.5)
zeros(2., 2); zeros(2, requires_grad=1); zeros(2, layout="x"); zeros(2, 3, foo=1); zeros(2, out=3); zeros(2, names=None)
zeros(2, 3, (2,)); zeros(2, out=t.empty(2, dtype=t.int64), dtype=t.float32); zeros(2, out=t.empty(2, requires_grad=True)); ones(-1)
ones(2, generator=None); empty((-1,)); empty(2.5); full(2, 1.); full((2,)); full((2,), "a"); full((2,), t.tensor([3.]))
full((2,), t.tensor(3., requires_grad=True)); full(); full((2,), 1, 2); full((-1,), 2); zeros_like([1]); zeros_like()
zeros_like(t.ones(2), 2); zeros_like(t.ones(2), out=None); full_like(t.ones(2)); full_like(t.ones(2), "a"); ones(2).new_zeros("a")
ones(2).new_full(2, 3); ones(2).new_zeros(-1); ones(2).new_ones(2, foo=3); ones(2).new_tensor(3, t.float32); ones(2).new_zeros()
ones(2).new_full((2,)); arange(); arange("a"); arange(3, 0); arange(0, 3, 0); arange(step=1); arange(3, requires_grad=True)
arange(1, 2, 3, 4); arange(3, foo=1); arange(t.tensor([1, 2])); range(3); range(); range(3, 0); linspace(0, 1); linspace(0, 1, 2.5)
linspace(0, 1, -1); linspace(t.tensor([0.]), 1, 3); linspace(0, 1, 3, 4); logspace(0, 2, -3); logspace(0, 2); eye(2.5); eye(-1)
eye(2, -1); eye(2, None); eye(); tril_indices(3); tril_indices(-3, 3); tril_indices(3, 3, dtype=t.float32); triu_indices(3, 3, 0, 0)
meshgrid(t.arange(2), indexing="zz"); meshgrid(); meshgrid(1); meshgrid(t.arange(2), foo=1); cartesian_prod(1)
combinations(t.ones(2, 2)); combinations(t.ones(2), -1); complex(t.ones(2), t.ones(2, dtype=t.float16))
complex(t.ones(2, dtype=t.int64), t.ones(2, dtype=t.int64)); complex(1, 2); polar(t.ones(2), t.ones(2, dtype=t.float16))
polar(t.ones(2)); tensor(); tensor([1], t.float32); tensor([1], foo=1); tensor([1], layout=t.strided); tensor([[1], [2, 3]])
tensor(None); tensor("a"); tensor([1], requires_grad=True); as_tensor([1], t.float32); as_tensor([1.], requires_grad=True)
as_tensor(); asarray(); asarray([1], foo=1); from_numpy([1]); Tensor(3.5); Tensor("a"); Tensor(True); Tensor(None); Tensor(2, "a")
Tensor([[1, 2], [3]]); rand(); rand("a"); rand((1,), (2,)); rand(2, 3.); rand(2.5); rand(size=3); rand(2, requires_grad=2)
rand(2, foo=1); rand((-1,)); rand(2, dtype=t.int64); rand(2, generator=3); randn((2,), 3); randn(2, dtype=t.int64); randn(names=2)
rand_like([1]); rand_like(t.ones(2, dtype=t.int64)); randint(5); randint(); randint(5, 2); randint(5, 5, (2,))
randint(0.5, 5, (2,)); randint(3, (2,), generator=4); randint(low=3, size=(2,)); randint(high=3); randint(3, (-1,))
randint(0, 300, (2,), dtype=t.uint8); randint_like(t.ones(2)); randperm(-1); randperm(4.5); randperm(); normal(); normal(0., 1.)
normal(0., 1., 2); normal(3, (2,)); normal("a", 1., (2,)); normal(t.zeros(3), t.ones(2)); normal(t.zeros(3), -1.)
normal(t.zeros(3), -t.ones(3)); normal(t.zeros(3, dtype=t.int64), 1.); bernoulli(t.ones(2), "a"); bernoulli()
bernoulli(t.ones(3, dtype=t.int64)); bernoulli(t.ones(3), 1.5); multinomial(t.ones(3), 4); multinomial(t.ones(3), 0)
multinomial(t.zeros(3), 1); multinomial(-t.ones(3), 1); multinomial(t.ones(3, dtype=t.int64), 1); multinomial(t.ones(1, 1, 3), 1)
multinomial(t.ones(3)); poisson(-t.ones(3)); poisson(t.ones(3, dtype=t.int64)); poisson([1]); ones(2).normal_(std=-1)
ones(2).normal_("a"); ones(2, dtype=t.int64).normal_(); ones(2).normal_(generator=3); ones(2).normal_(0, 1, 2)
ones(2, requires_grad=True).normal_(); ones(2).uniform_(3, 2); ones(2, dtype=t.int64).uniform_(); ones(2).random_(5, 5)
ones(2).random_(1.5); ones(2).bernoulli_(1.3); ones(2).bernoulli_("a"); ones(2).exponential_(-2); ones(2).exponential_("a")
ones(2).geometric_(1.5); ones(2).geometric_(); ones(2).log_normal_(std=-1); ones(2).cauchy_(sigma=-1); manual_seed("a")
zeros(2, dtype=t.float32, foo=3)
"""


def calls(text: str) -> list[str]:
    return [call.strip() for line in text.strip().splitlines() for call in line.split(";") if call.strip()]


def run(t: Any, call: str) -> Any:
    names = {"t": t, "np": np, "x64": False, "g": t.Generator().manual_seed(3)}
    name, _, rest = call.partition("(")
    return eval(f"t.{name}({rest}", names)


def kind_of(x: Any) -> list[Any]:
    if isinstance(x, (tuple, list)):
        return [kind_of(y) for y in x]
    return [list(x.shape), str(x.dtype).replace("int64", "int32"), x.requires_grad]  # whole numbers have 32 bits without x64


def refusal(t: Any, call: str) -> tuple[str, str]:
    try:
        found = run(t, call)
    except Exception as error:
        return type(error).__name__, str(error).splitlines()[0].replace("Long", "Int")
    return call, f"is not refused: {found}"


@pytest.mark.parametrize("line", range(len(VALUES.strip().splitlines())))
def test_what_is_made(line: int) -> None:
    def program(t: Any) -> list[Any]:
        made = [run(t, call) for call in calls(VALUES.strip().splitlines()[line])]
        return [made, [kind_of(x) for x in made]]

    in_both(program)


@pytest.mark.parametrize("line", range(len(KINDS.strip().splitlines())))
@pytest.mark.thorough
def test_of_which_kind_it_is(line: int) -> None:
    in_both(lambda t: [kind_of(run(t, call)) for call in calls(KINDS.strip().splitlines()[line])])


@pytest.mark.parametrize("line", range(len(REFUSED.strip().splitlines())))
def test_what_is_refused(line: int) -> None:
    refused = in_both(lambda t: [refusal(t, call) for call in calls(REFUSED.strip().splitlines()[line])])
    assert all(kind.endswith("Error") for kind, _ in refused)


#: Operations by the names of their arguments: PyTorch's, and numpy's that it takes too; ``x`` is 2 by 3, ``y`` too.
NAMED = """
t.sum(input=x, dim=0, keepdim=True, dtype=t.float32); t.sum(x, axis=1, keepdims=True); x.sum(axis=0)
x.mean(axis=(0, 1), keepdims=True); t.max(x, dim=1, keepdim=True); t.max(x, other=y); t.min(input=x, axis=0); x.max(other=y)
t.argmax(x, axis=1); x.prod(axis=1); t.var(x, dim=1, correction=0, keepdim=True); t.std(x, axis=0); t.logsumexp(x, axis=1)
t.cumsum(x, axis=1); x.cumsum(0, dtype=t.float32); t.cumprod(input=x, dim=0, dtype=t.float32); t.all(x > 0, axis=0)
t.amax(x, axis=0, keepdims=True); t.count_nonzero(x, dim=0); t.add(input=x, other=y, alpha=2); t.sub(x, other=y)
t.mul(input=x, other=y); t.div(x, other=y, rounding_mode="floor"); t.pow(x, exponent=2); t.maximum(input=x, other=y)
t.atan2(input=x, other=y); t.fmax(input=x, other=y); t.copysign(x, other=y); t.heaviside(x.detach(), values=y)
t.addcmul(x, tensor1=x, tensor2=y, value=2); t.addcdiv(input=x, tensor1=x, tensor2=y); x.clone().addcmul_(tensor1=x, tensor2=y)
t.matmul(input=x, other=y.T); t.mm(input=x, mat2=y.T); t.mv(x, vec=y[0]); t.dot(input=x[0], tensor=y[0]); t.outer(x[0], vec2=y[0])
t.addmm(input=x[:, :2], mat1=x, mat2=y.T, beta=2, alpha=3); t.cross(x, y); t.cross(input=x, other=y, dim=1)
t.inner(input=x, other=y); t.where(condition=x > 0, input=x, other=y); t.where(x > 0); t.nonzero(x, as_tuple=True)
t.clamp(input=x, min=0, max=1); t.lerp(x, end=y, weight=.5); t.reshape(input=x, shape=(3, 2)); x.reshape(shape=(6,))
x.view(size=(3, 2)); t.permute(input=x, dims=(1, 0)); x.permute(dims=(1, 0)); t.flip(input=x, dims=(0, 1)); x.flip(dims=(1,))
t.tile(input=x, dims=(2,)); x.repeat(repeats=(2, 1)); x[:1].expand(size=(4, 3)); t.transpose(input=x, dim0=0, dim1=1)
t.swapaxes(x, axis0=0, axis1=1); t.unsqueeze(input=x, dim=0); t.squeeze(input=x[None], dim=0); t.cat(tensors=[x, y], dim=1)
t.concatenate([x, y], axis=1); t.stack(tensors=[x, y], dim=-1); t.split(tensor=x, split_size_or_sections=2, dim=1)
x.split(split_size=1); t.chunk(input=x, chunks=2, dim=0); t.gather(input=x, dim=0, index=i, sparse_grad=False)
x.scatter(dim=0, index=i, value=2.); t.index_select(input=x, dim=1, index=i[0])
x.clone().index_add_(dim=1, index=i[0, :2], source=x[:, :2], alpha=2); x.scatter(0, i, src=y)
t.diff(input=x, n=1, dim=1, prepend=x[:, :1]); t.round(x, decimals=1); t.nansum(x, dim=1, keepdim=True)
t.norm(x, p=2, dim=1, dtype=t.float32); t.repeat_interleave(x, repeats=t.tensor([1, 2]), dim=0, output_size=3)
t.repeat_interleave(x, t.tensor([2])); t.topk(input=x, k=2, dim=1); t.sort(input=x, dim=0, descending=True, stable=True)
t.argsort(x, dim=1, stable=True); t.atleast_2d(x[0], y[0]); t.atleast_3d(x); t.linalg.solve(A=x @ x.T, B=y, left=True)
t.linalg.solve(x @ x.T, y.T, left=False); t.linalg.det(A=x @ x.T); t.linalg.norm(input=x, dim=1)
t.linalg.cholesky(x @ x.T, upper=True); t.linalg.vector_norm(x, ord=1, dim=0); t.linalg.slogdet(A=x @ x.T).logabsdet
t.linalg.inv(A=x @ x.T); 2 - x; 3 / y; x.to(t.zeros(1), non_blocking=False, copy=True); x.float(memory_format=t.preserve_format)
t.nn.functional.softmax(input=x, dim=1)
"""


def of_named(t: Any, call: str) -> Any:
    x = t.tensor([[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]], requires_grad=True)
    y, i = t.tensor([[1.0, 2.0, -0.5], [0.75, -1.5, 3.0]]), t.tensor([[0, 1, 0], [1, 1, 0]])
    out = eval(call, {"t": t, "x": x, "y": y, "i": i})
    outs = list(out) if isinstance(out, (tuple, list)) else [out]
    active = [o for o in outs if o.requires_grad]
    return [outs, [t.autograd.grad(sum((o * o).sum() for o in active), x)[0]] if active else []]


@pytest.mark.parametrize("line", range(len(NAMED.strip().splitlines())))
@pytest.mark.thorough
def test_operations_by_the_names_of_their_arguments(line: int) -> None:
    in_both(lambda t: [of_named(t, call) for call in calls(NAMED.strip().splitlines()[line])])


def test_results_are_written_into_out() -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor([[0.5, -1.0], [2.0, 3.0]])
        into, empty, wide = t.zeros(2, 2), t.empty(0), t.zeros(2, 2, dtype=t.float32)
        made = t.sin(x, out=into)
        shown = [made is into, into, t.add(x, x, out=empty), empty, t.matmul(x, x, out=wide), t.sum(x, dim=0, out=t.empty(2))]
        values, indices = t.empty(2), t.empty(2, dtype=t.int64)
        found = t.max(x, 1, out=(values, indices))
        shown += [found.values is values, values, indices, t.exp(x, out=None), t.arange(4., out=t.empty(4)).sum()]
        base = t.zeros(2, 2)
        t.cos(x[0], out=base[1])
        with t.no_grad():
            leaf = t.zeros(2, requires_grad=True)
            t.neg(x[0], out=leaf)
        return [*shown, base, leaf]

    in_both(program)

    def refused(t: Any) -> list[Any]:
        x, active = t.ones(2), t.ones(2, requires_grad=True)
        return [message(lambda: t.sin(active, out=t.empty(2))), message(lambda: t.sin(x, out=t.empty(2, dtype=t.int32))),
                message(lambda: t.sin(x, out=3), TypeError), message(lambda: t.relu(x, out=x), TypeError),
                message(lambda: t.sum("a"), TypeError), message(lambda: t.sin(2.0), TypeError)]

    in_both(refused)
    with pytest.raises(RuntimeError, match=r"out= has shape \[3\], and the result has shape \[2\]"):
        torch.sin(torch.ones(2), out=torch.ones(3))


@pytest.mark.thorough
def test_draws_do_not_move_with_what_they_are_drawn_from() -> None:
    def program(t: Any) -> list[Any]:
        w = t.full((3,), 0.5, requires_grad=True)
        shown = []
        for draw in (t.bernoulli, t.poisson, lambda p: t.normal(p, 1.0), lambda p: t.normal(0.0, p), lambda p: (2 * p).normal_(),
                     lambda p: (2 * p).uniform_(), lambda p: (2 * p).bernoulli_(0.5), lambda p: (2 * p).exponential_()):
            drawn = draw(w)
            shown += [drawn.requires_grad, t.autograd.grad(drawn.sum(), w, allow_unused=True)[0]]
        return [0.0 if g is None else g for g in shown]

    in_both(program)


@pytest.mark.thorough
def test_what_is_drawn_has_its_distribution() -> None:
    g = torch.Generator().manual_seed(0)
    n = 20000
    cases: list[tuple[Any, float, float]] = [
        (lambda x: x.normal_(1, 2, generator=g), 1, 2), (lambda x: x.uniform_(-1, 3, generator=g), 1, 4 / 12 ** 0.5),
        (lambda x: x.exponential_(2, generator=g), 0.5, 0.5), (lambda x: x.bernoulli_(0.3, generator=g), 0.3, 0.21 ** 0.5),
        (lambda x: x.geometric_(0.25, generator=g), 4, 12 ** 0.5), (lambda x: x.random_(2, 5, generator=g), 3, (2 / 3) ** 0.5),
        (lambda x: x.log_normal_(0, 0.5, generator=g).log_(), 0, 0.5),
        (lambda x: x.cauchy_(2, 3, generator=g).sub_(2).div_(3).atan_(), 0, np.pi / 12 ** 0.5),
        (lambda x: torch.poisson(x.fill_(4), generator=g), 4, 2)]
    for fill, mean, std in cases:
        drawn = fill(torch.empty(n)).numpy()
        assert drawn.mean() == pytest.approx(mean, abs=5 * std / n ** 0.5) and drawn.std() == pytest.approx(std, rel=0.06)
    weights = torch.tensor([1.0, 0.0, 3.0])
    many = torch.multinomial(weights, n, replacement=True, generator=g).numpy()
    assert np.bincount(many, minlength=3) / n == pytest.approx([0.25, 0, 0.75], abs=0.02)
    twice = torch.multinomial(weights.expand(n, 3), 2, generator=g).numpy()
    assert set(map(tuple, twice)) == {(0, 2), (2, 0)} and np.mean(twice[:, 0] == 2) == pytest.approx(0.75, abs=0.02)
    first = torch.randn(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, torch.randn(3, generator=torch.Generator().manual_seed(5)))


def test_where_tensors_are_made() -> None:
    def program(t: Any) -> list[Any]:
        with t.device("cpu") as here:
            a = t.zeros(2)
        before = str(t.get_default_device())
        t.set_default_device("cpu")
        shown = [str(here), str(a.device), before, str(t.get_default_device()), str(t.ones(1).device), str(t.Generator().device)]
        t.set_default_device(None)
        return [*shown, repr(t.strided), repr(t.preserve_format), isinstance(t.LongTensor([1]), t.LongTensor),
                isinstance(t.ones(1), t.LongTensor), message(lambda: t.device("foo"))[:9]]

    in_both(program)
    with pytest.raises(RuntimeError, match=r"layout=torch.sparse_coo is not offered"):
        torch.zeros(2, layout=torch.sparse_coo)


def test_random_numbers_under_vmap() -> None:
    def program(t: Any) -> list[Any]:
        def noisy(x: Any) -> Any:
            return x + t.rand(())

        x = t.zeros(4)
        spread = [len(set(t.func.vmap(noisy, randomness=how)(x).tolist())) for how in ("same", "different")]
        return [*spread, message(lambda: t.func.vmap(noisy)(x)), message(lambda: t.func.vmap(noisy, randomness="no")(x))]

    assert in_both(program)[:2] == [1, 4]


def test_what_is_called_shows_its_arguments() -> None:
    names = list(inspect.signature(torch.zeros).parameters)
    assert names == ["size", "out", "dtype", "layout", "device", "pin_memory", "requires_grad"]
    assert str(inspect.signature(torch.sum).parameters["out"]) == "out=None"
