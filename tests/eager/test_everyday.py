"""Everyday ways of writing, in which results were easily different: order of members, indices, kinks, refusals, no dimensions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import in_both


def told(fun: Callable[[], Any]) -> Any:
    """The result, or the class and the first line of what is raised."""
    try:
        return fun()
    except Exception as error:  # whatever PyTorch raises is compared
        return type(error).__name__, (str(error).splitlines() or [""])[0]


def names(pairs: Any) -> list[str]:
    return [name for name, _ in pairs]


# ------------------------------------------------------------------------------------------------------------------ modules

def test_members_that_are_assigned_again_keep_their_place() -> None:
    def program(t: Any) -> Any:
        m = t.nn.Sequential(t.nn.Linear(2, 2), t.nn.ReLU(), t.nn.Flatten(0))
        setattr(m, "0", t.nn.Linear(2, 2))
        found: list[Any] = [names(m.named_children()), names(m.named_parameters()), list(m.state_dict())]
        for name, _ in m.named_children():
            setattr(m, name, t.nn.Identity())
        m[1] = t.nn.Tanh()
        layer = t.nn.Linear(2, 3)
        layer.weight = t.nn.Parameter(t.zeros(3, 2))
        found += [repr(m), names(layer.named_parameters())]
        layer.bias = None
        found.append(names(layer.named_parameters()))
        layer.bias = t.nn.Parameter(t.zeros(3))
        layer.extra = t.nn.Buffer(t.ones(1))
        del layer.weight
        return [*found, list(layer.state_dict()), told(lambda: layer.weight)]

    in_both(program)


def test_members_that_do_not_fit_are_refused() -> None:
    def program(t: Any) -> Any:
        class Net(t.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.a = t.nn.Linear(1, 1)
                self.register_buffer("b", t.zeros(1))
                self.c = t.nn.Parameter(t.zeros(1))

        class Early(t.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                self.a = t.nn.Linear(1, 1)

        m = Net()
        one = t.ones(1)
        calls = [lambda: setattr(m, "a", 3), lambda: setattr(m, "b", 3), lambda: setattr(m, "c", 3),
        lambda: m.register_buffer("c", one),
                 lambda: m.register_parameter("b", None), lambda: m.add_module("c", t.nn.ReLU()), lambda: m.register_buffer("x.y", one),
                 lambda: m.register_buffer("", one), lambda: m.register_buffer(3, one), lambda: m.register_parameter("q", one),
                 lambda: m.add_module("q", 3), lambda: m.add_module("a.b", t.nn.ReLU()), Early, lambda: m.train(3),
                 lambda: m.get_submodule("x.y"), lambda: m.get_parameter("b"), lambda: m.to(t.int64), lambda: m.load_state_dict(3),
                 lambda: m.load_state_dict({"b": t.ones(2), "z": one})]
        return [told(call) for call in calls]

    in_both(program)


def test_children_are_asked() -> None:
    def program(t: Any) -> Any:
        log: list[Any] = []

        class Frozen(t.nn.BatchNorm2d):  # type: ignore[misc]
            def train(self, mode: bool = True) -> Any:
                return super().train(False)

        class Told(t.nn.Linear):  # type: ignore[misc]
            def _apply(self, fn: Any, recurse: bool = True) -> Any:
                log.append("apply")
                return super()._apply(fn, recurse)

            def _load_from_state_dict(self, *args: Any) -> None:
                log.append("load")
                super()._load_from_state_dict(*args)

            def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
                log.append("save")
                super()._save_to_state_dict(*args, **kwargs)

        class Extra(t.nn.Module):  # type: ignore[misc]
            extra = 3

            def get_extra_state(self) -> Any:
                return {"extra": self.extra}

            def set_extra_state(self, state: Any) -> None:
                self.extra = state["extra"]

        net = t.nn.Sequential(t.nn.Conv2d(1, 1, 1), Frozen(1)).train()
        m = t.nn.Sequential(Told(2, 2), t.nn.ReLU())
        m.float().to(t.float32).load_state_dict(m.state_dict())
        a, b = Extra(), Extra()
        b.extra = 0
        b.load_state_dict(a.state_dict())
        handle = m.register_load_state_dict_post_hook(lambda module, keys: log.append(list(keys.missing_keys)))
        m.load_state_dict({}, strict=False)
        handle.remove()
        old = dict(t.nn.BatchNorm1d(2).state_dict())
        old.pop("num_batches_tracked")
        return [net.training, net[0].training, net[1].training, log, list(a.state_dict()), b.extra,
                repr(t.nn.BatchNorm1d(2).load_state_dict(old))]

    in_both(program)


def test_containers() -> None:
    def program(t: Any) -> Any:
        nn = t.nn
        m = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        m.insert(0, nn.Flatten())
        m += [nn.GELU()]
        m[-1] = nn.ReLU()
        found = [repr(m), repr(m[1:]), repr(m.pop(0)), len(m), isinstance(m, nn.Sequential), told(lambda: m[7])]
        s = nn.Sequential(nn.ReLU(), nn.Tanh())
        s.insert(1, nn.Flatten())
        del s[0]
        d = nn.ModuleDict({"a": nn.ReLU()})
        d.update({"b": nn.Tanh()})
        p = nn.ParameterList([t.zeros(2), nn.Parameter(t.ones(1))])
        p.append(t.ones(3))
        p[0] = t.ones(5)
        q = nn.ParameterDict({"a": t.zeros(2)})
        q["b"] = t.ones(2, 3)
        return [*found, repr(s + nn.Sequential(nn.ReLU())), list(d), repr(d.pop("a")), len(d), repr(p), names(p.named_parameters()),
                repr(q), names(q.named_parameters()), q.get("z")]

    in_both(program)


def test_hooks_and_copies_of_modules() -> None:
    def program(t: Any) -> Any:
        class Net(t.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layer = t.nn.Linear(2, 2)
                self.tied = self.layer
                self.register_buffer("quiet", t.ones(1), persistent=False)

            def forward(self, x: Any, k: float = 1) -> Any:
                return self.layer(x) * k

        log: list[Any] = []
        net = Net()
        with t.no_grad():
            for p in net.parameters():
                p.fill_(1.0)
        net.register_forward_pre_hook(lambda m, args, kwargs: log.append(sorted(kwargs)), with_kwargs=True)
        net.register_forward_hook(lambda m, args, kwargs, out: log.append(out.shape), with_kwargs=True)
        net.register_forward_pre_hook(lambda m, args: log.append("first"), prepend=True)
        net.register_full_backward_pre_hook(lambda m, g: (g[0] * 10,))
        x = t.ones(1, 2, requires_grad=True)
        net(x, k=3).sum().backward()
        twin = copy.deepcopy(net)
        kept = net.state_dict(keep_vars=True)
        other = Net()
        other.load_state_dict(kept, assign=True)
        return [log, x.grad, names(net.named_modules()), names(net.named_modules(remove_duplicate=False)),
                names(net.named_parameters(prefix="q")), list(net.state_dict()), twin.layer.weight is not net.layer.weight,
                other.layer.weight is net.layer.weight]

    in_both(program)


# ------------------------------------------------------------------------------------------------------------------ indices

INDICES: dict[str, Callable[[Any], Any]] = dict(
    number_and_list=lambda t: (0, slice(None), [1, 2]), number_and_tensor=lambda t: (0, slice(None), t.tensor([1, 2])),
    no_dimensions=lambda t: (t.tensor(0), slice(None), t.tensor([1, 2])), list_and_number=lambda t: ([0, 1], slice(None), 0),
    lists_apart=lambda t: ([0, 1], slice(None), [1, 2]), new_dimension=lambda t: (0, None, [1, 2]),
    mask=lambda t: t.tensor([True, False]),
    mask_and_number=lambda t: (t.tensor([True, False]), slice(None), 0), one=lambda t: t.tensor(-1), true=lambda t: True,
    false=lambda t: False, true_tensor=lambda t: t.tensor(True), bytes=lambda t: t.tensor([1, 0], dtype=t.uint8),
    nested=lambda t: [[0, 1], [1, 0]],
    listed_slice=lambda t: [0, slice(None)], matrix=lambda t: (t.tensor([[0, 1], [1, 0]]), slice(None), 1), twice=lambda t: (..., ...),
    strided=lambda t: (slice(None, None, 2), slice(1, None, 2)), nothing=lambda t: [], large=lambda t: t.ones(2, 3, 4) > 0,
    short=lambda t: t.tensor([0, 1], dtype=t.int16), half=lambda t: t.tensor(1.0), outside=lambda t: t.tensor([5]),
    many=lambda t: (0, 0, 0, 0),
    numpy=lambda t: (np.int64(1), np.array([0, 1])),
)


@pytest.mark.parametrize("name", INDICES)
def test_indices(name: str) -> None:
    def program(t: Any) -> Any:
        x = t.arange(24.0).reshape(2, 3, 4).requires_grad_()
        y = told(lambda: x[INDICES[name](t)])
        if isinstance(y, tuple):
            return y
        (y * y).sum().backward()
        z = t.zeros(2, 3, 4)
        z[INDICES[name](t)] = y.detach() + 1
        return [y, x.grad, z]

    in_both(program)


def test_assignments() -> None:
    def program(t: Any) -> Any:
        def after(index: Any, value: Any) -> Any:
            x = t.zeros(2, 3, 4)

            def assign() -> Any:
                x[index] = value
                return x

            return told(assign)

        one = t.ones
        every = slice(None)
        return [after(*case) for case in [
            ((0, every, [1, 2]), t.arange(6.0).reshape(3, 2)), (0, one(1, 1, 4)), (t.tensor(True), 3.0),
            (t.tensor([1, 0], dtype=t.uint8), 2.0),
            ((0, 0, 0), one(1, 1)), ((0, 0), one(2)), ([0, 0], one(3)), (one(2, 3, 4) > 0, t.arange(23.0)), (5, 1.0), (0, "a"),
            (0, None),
            (t.tensor([0]), one(5)), ((every, t.tensor([True, False, True])), t.arange(4.0)), ((None, 0), 2.0), (1, t.tensor(3))]]

    in_both(program)


def test_rows_are_views() -> None:
    def program(t: Any) -> Any:
        x = t.zeros(3, 2)
        x[t.tensor(0)].fill_(3.0)
        x[np.int64(1)].fill_(2.0)
        row = x[2]
        x[2, 0] = 7.0
        w = t.zeros(3, 2, requires_grad=True)
        y = w * 1
        y[t.tensor(1)] = 7.0
        y[0, t.tensor(1)] += 2
        (y * y).sum().backward()
        return [x, row, y, w.grad]

    in_both(program)


# -------------------------------------------------------------------------------------------------------------------- kinks

NORMS: dict[str, Callable[[Any, Any], Any]] = dict(
    std=lambda t, x: x.std(), norm=lambda t, x: x.norm(), half=lambda t, x: x.norm(0.5), between=lambda t, x: x.norm(1.5),
    three=lambda t, x: x.norm(3), largest=lambda t, x: x.norm(float("inf")), smallest=lambda t, x: x.norm(float("-inf")),
    vector=lambda t, x: t.linalg.vector_norm(x, 3), unit=lambda t, x: t.nn.functional.normalize(x, dim=0)[0],
)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [1.0, -3.0, 3.0]], ids=str)
def test_norms_at_zero(name: str, values: list[float]) -> None:
    def program(t: Any) -> Any:
        x = t.tensor(values, requires_grad=True)
        y = NORMS[name](t, x)
        y.backward()
        return [y, x.grad]

    in_both(program)


def test_angles_and_powers_at_zero() -> None:
    def program(t: Any) -> Any:
        found: list[Any] = []
        for f, pairs in ((t.atan2, ((0.0, 0.0), (0.0, 2.0))), (t.pow, ((0.0, 0.0), (0.0, 2.0), (0.0, 1.0), (2.0, 0.0))),
                         (t.xlogy, ((0.0, -1.0), (0.0, 2.0))), (t.copysign, ((0.0, 2.0),))):
            for a, b in pairs:
                x, y = t.tensor(a, requires_grad=True), t.tensor(b, requires_grad=True)
                z = f(x, y)
                z.backward()
                found += [z, x.grad, y.grad]
        z = t.tensor([0j, 1 + 1j, -1 + 0j], requires_grad=True)
        z.angle().sum().backward()
        x = t.tensor([0.0, -1.0, 1.0], requires_grad=True)
        x.angle().sum().backward()
        return [*found, t.view_as_real(z.grad) if hasattr(t, "view_as_real") else t.stack([z.grad.real, z.grad.imag], 1), x.grad]

    in_both(program)


# ---------------------------------------------------------------------------------------------------------- modes, gradients

def test_generators_run_inside_the_block() -> None:
    def program(t: Any) -> Any:
        w = t.ones(1, requires_grad=True)
        log: list[Any] = []

        @t.no_grad()
        def steps() -> Any:
            log.append(((yield (w * 2).requires_grad), t.is_grad_enabled()))
            log.append(((yield (w * 2).requires_grad), t.is_grad_enabled()))

        g = steps()
        found = [next(g), t.is_grad_enabled(), g.send(5), told(lambda: g.send(1)), log]

        @t.enable_grad()
        def recorded() -> Any:
            yield (w * 2).requires_grad

        with t.no_grad():
            return [*found, list(recorded())]

    in_both(program)


def test_complex_functions_are_checked() -> None:
    def program(t: Any) -> Any:
        z = t.tensor([1 + 1j, 2 - 1j], dtype=t.complex128, requires_grad=True)
        x = t.tensor([1.0, 2.0], dtype=t.float64, requires_grad=True)
        check = t.autograd.gradcheck
        return [check(lambda z: z.abs(), (z,)), check(lambda z: z.angle(), (z,)), check(lambda z: z * z.conj(), (z,)),
                check(lambda x: t.complex(x, x * x), (x,)), t.autograd.gradgradcheck(lambda z: z * z, (z,))]

    in_both(program)


CHANGED: dict[str, Callable[[Any, Any, Any], Any]] = dict(
    linear=lambda t, y, w: (t.nn.functional.linear(y, w), w), std=lambda t, y, w: (y.std(), y),
    logsumexp=lambda t, y, w: (y.logsumexp(0), y),
    mse=lambda t, y, w: (t.nn.functional.mse_loss(y, t.zeros(3)), y), clamp=lambda t, y, w: (y.clamp(0, 1), y),
    abs=lambda t, y, w: (y.abs(), y),
    relu_of=lambda t, y, w: (y.relu(), y), sigmoid_of=lambda t, y, w: (y.sigmoid(), y), softmax_of=lambda t, y, w: (y.softmax(0), y),
    sum=lambda t, y, w: (y.sum(), y), huber=lambda t, y, w: (t.nn.functional.huber_loss(y, t.zeros(3)), y),
    gathered=lambda t, y, w: (y.gather(0, t.tensor([0])), y), relu=lambda t, y, w: (lambda out: (out * 1, out))(y.relu()),
    exp=lambda t, y, w: (lambda out: (out * 1, out))(y.exp()), where=lambda t, y, w: (t.where(y > 0, y, y * 2), y),
    index=lambda t, y, w: (lambda i: (y[i], i))(t.tensor([0, 1])),
    embedding=lambda t, y, w: (lambda i: (t.nn.functional.embedding(i, w), i))(t.tensor([0])),
    pool=lambda t, y, w: (t.nn.functional.max_pool1d(y[None, None], 2), y),
    inverse=lambda t, y, w: (lambda out: (out * 1, out))(t.linalg.inv(w[:, :2] + t.eye(2))),
)


@pytest.mark.parametrize("name", CHANGED)
def test_whatever_the_pull_reads_is_guarded(name: str) -> None:
    def program(t: Any) -> Any:
        y = t.full((3,), 0.5, requires_grad=True) * 1.0
        w = t.ones(2, 3, requires_grad=True) * 1.0
        result, changed = CHANGED[name](t, y, w)
        with t.no_grad():
            changed.mul_(2)
        found = told(lambda: result.sum().backward())
        return found[1][:60] if found else "no refusal"

    in_both(program)


# ------------------------------------------------------------------------------------------------------------------ refusals

def test_linear_algebra_refuses_singular_matrices() -> None:
    def program(t: Any) -> Any:
        zero, pair = t.zeros(2, 2), t.stack([t.eye(2), -t.eye(2)])
        found = [told(call) for call in (
            lambda: t.linalg.inv(zero), lambda: t.linalg.cholesky(-t.eye(2)), lambda: t.linalg.solve(zero, t.ones(2)),
            lambda: t.inverse(zero),
            lambda: t.linalg.cholesky(pair), lambda: t.linalg.inv(t.ones(2, 3)))]
        try:
            t.linalg.cholesky(-t.eye(2))
        except t.linalg.LinAlgError:
            found.append("caught")
        return [*found, t.linalg.cholesky_ex(-t.eye(2)).info, t.linalg.inv_ex(zero).info, t.linalg.det(zero)]

    in_both(program)


def test_whole_numbers() -> None:
    def program(t: Any) -> Any:
        i = t.tensor([1, 2, -3])
        calls = [lambda: i // 0, lambda: i % 0, lambda: i // t.zeros(3, dtype=t.long), lambda: i.fmod(0), lambda: i / 0, lambda: i // 2,
                 lambda: i ** -1, lambda: i ** -1.0, lambda: 2 ** i, lambda: i << 1, lambda: i >> 1, lambda: t.where(i > 0, 1.0, i),
                 lambda: t.where(i > 0, 1, 2), lambda: -t.tensor([True]), lambda: t.tensor([True]) - t.tensor([True]), lambda: i.std(),
                 lambda: t.tensor([300]).to(t.uint8), lambda: i.float() // 0, lambda: t.div(i, 2, rounding_mode="trunc")]
        kinds = [str((t.ones(2, dtype=t.int32) + t.tensor(1)).dtype), str(i.sum().dtype), str(t.where(i > 0, 1.0, 2.0).dtype),
                 str(i.float().sum(dtype=t.float64).dtype), str((t.ones(2) ** i[:2]).dtype), str(i.argmax().dtype)]
        return [*[told(call) for call in calls], *kinds]

    in_both(program)


def test_formats() -> None:
    def program(t: Any) -> Any:
        x, v, r = t.tensor(1.23456), t.tensor([1.0, 2.0]), t.tensor(2.0, requires_grad=True)
        return [f"{x:.2f}", f"{x}", f"{t.tensor(3):3d}", f"{v}", f"{r}", f"{r * 2:.1f}", told(lambda: f"{v:.2f}")[0]]

    in_both(program)


def test_losses_and_gradients_refuse() -> None:
    def program(t: Any) -> Any:
        w = t.ones(1, requires_grad=True)
        wrong = t.tensor([1.5, 0.5])
        y = t.ones(50)
        t.nn.Dropout(0.5, inplace=True)(y)
        return [told(lambda: t.nn.functional.binary_cross_entropy(wrong, t.ones(2))), told(lambda: t.autograd.grad((w * 2, 3), w)),
                told(lambda: t.autograd.functional.jacobian(lambda x: 3.0, t.ones(1))), bool((y != 1).any()),
                told(lambda: t.func.grad(lambda a: a.sum(), argnums=5)(t.ones(2)))]

    in_both(program)


# ------------------------------------------------------------------------------------------------------- without dimensions

def test_tensors_without_dimensions() -> None:
    def program(t: Any) -> Any:
        s = t.tensor(3.0, requires_grad=True)
        calls = [lambda: s.sum(0), lambda: s.softmax(0), lambda: s.log_softmax(-1), lambda: s.sort(), lambda: s.topk(1),
        lambda: s.max(0),
                 lambda: s.argmax(0), lambda: s.mean(-1), lambda: s.cumsum(0), lambda: s.prod(0), lambda: s.logsumexp(0),
                 lambda: s.norm(dim=0), lambda: s.var(0, unbiased=False), lambda: s.flatten(), lambda: s.index_select(0, t.tensor(0)),
                 lambda: s.gather(0, t.tensor(0)), lambda: s.argsort(), lambda: s.any(0), lambda: s.amax(0), lambda: s.flip(0),
                 lambda: s.transpose(0, 0), lambda: s.unbind(0), lambda: s.chunk(1), lambda: t.cat([s, s]), lambda: s.nonzero(),
                 lambda: s.select(0, 0), lambda: s.scatter(0, t.tensor(0), t.tensor(1.0)), lambda: s.sum(1), lambda: s.diff()]
        return [[*r] if isinstance(r, tuple) else r for r in (told(call) for call in calls)]

    in_both(program)


def test_repetitions() -> None:
    def program(t: Any) -> Any:
        x = t.arange(3.0)
        times = t.tensor([1, 0, 2])
        return [x.repeat_interleave(times), x[None].repeat_interleave(times, dim=1), t.repeat_interleave(times), x.repeat_interleave(2)]

    in_both(program)


def test_hooks_of_accumulation_and_nested_backward() -> None:
    def program(t: Any) -> Any:
        x = t.arange(3.0, requires_grad=True)
        y = x * x
        accumulate = y.grad_fn.next_functions[0][0]
        log: list[Any] = []
        accumulate.register_prehook(lambda grads: log.append(grads[0].tolist()))
        accumulate.register_hook(lambda inputs, outputs: log.append(len(inputs)))
        y.sum().backward()

        class Nested(t.autograd.Function):  # type: ignore[misc]
            @staticmethod
            def forward(ctx: Any, x: Any, depth: int) -> Any:
                ctx.depth = depth
                ctx.save_for_backward(x)
                return x * 1

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                x, = ctx.saved_tensors
                if ctx.depth:
                    with t.enable_grad():
                        inner = x.detach().requires_grad_()
                        z = Nested.apply(inner, ctx.depth - 1)
                    z.backward()
                    g = g * inner.grad
                return g, None

        w = t.ones(1, requires_grad=True)
        Nested.apply(w, 150).backward()
        return [log, x.grad, w.grad]

    in_both(program)
