"""Functions with a backward of their own, functional derivatives, forward mode, hooks on saved tensors, checkpoints."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from against_torch import in_both, message

from dualrev import eager as torch


def cube(t: Any) -> Any:
    class Cube(t.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            out = factor * x ** 3
            ctx.save_for_backward(x)
            ctx.factor = factor
            return out

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            x, = ctx.saved_tensors
            return 3 * ctx.factor * x ** 2 * g, None

    return Cube


def test_functions_with_a_backward_of_their_own() -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = cube(t).apply(x, 2.0)
        first, = t.autograd.grad(y.sum(), x, create_graph=True)
        second, = t.autograd.grad(first.sum(), x)
        y = cube(t).apply(x, 1.0)
        y.sum().backward()
        return [first, second, y, x.grad, y.grad_fn.name(), message(lambda: y.sum().backward())]

    in_both(program)


def test_setup_context_outputs_and_marks() -> None:
    def program(t: Any) -> list[Any]:
        class Two(t.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(x: Any, y: Any) -> Any:
                return x * y, (x > 1).float()

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                ctx.save_for_backward(*inputs, output[0])
                ctx.mark_non_differentiable(output[1])

            @staticmethod
            def backward(ctx: Any, g: Any, _: Any) -> Any:
                _, y, out = ctx.saved_tensors
                assert ctx.needs_input_grad == (True, False)
                return g * y + 0 * out, None

        class Once(t.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            @t.autograd.function.once_differentiable
            def backward(ctx: Any, g: Any) -> Any:
                return g * 2

        x, y = t.tensor([1.0, 2.0], requires_grad=True), t.tensor([3.0, 4.0])
        product, large = Two.apply(x, y)
        (product * 2).sum().backward()
        g, = t.autograd.grad((Once.apply(x) ** 2).sum(), x, create_graph=True)
        return [product, large, large.requires_grad, x.grad, g, message(lambda: g.sum().backward())]

    in_both(program)


def test_any_jax_function_is_one_operation() -> None:
    wave = torch.lift(lambda x, *, k: {"a": jnp.sin(k * x["v"]), "b": jnp.sum(x["v"])}, name="Wave")
    x = torch.tensor([0.1, 0.2], requires_grad=True)
    out = wave({"v": x}, k=3)
    assert out["a"].grad_fn is out["b"].grad_fn and out["a"].grad_fn.name() == "WaveBackward0"
    g: Any
    g, = torch.autograd.grad(out["a"].sum() + out["b"], x, create_graph=True)
    np.testing.assert_allclose(g.detach().numpy(), 3 * np.cos([0.3, 0.6]) + 1, 1e-6)
    g.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), -9 * np.sin([0.3, 0.6]), 1e-6)  # type: ignore[union-attr]


@pytest.mark.thorough
def test_derivatives_of_functions() -> None:
    def program(t: Any) -> list[Any]:
        F = t.autograd.functional
        x, y = t.tensor([0.5, 1.5]), t.tensor([2.0, -1.0, 3.0])
        f = lambda x: x.exp() * x[0]  # noqa: E731
        two = lambda x, y: (x.sum() * y, x * x)  # noqa: E731
        h = lambda x: (x ** 3).sum() + x.prod()  # noqa: E731
        v = t.tensor([1.0, -2.0])
        return [F.jacobian(f, x), F.jacobian(two, (x, y)), F.vjp(f, x, v), F.jvp(f, x, v), F.hessian(h, x), F.hvp(h, x, v),
                F.vhp(h, x, v), F.hessian(lambda a, b: (a.sum() * b).pow(2).sum(), (x, y)),
                F.jacobian(f, x.requires_grad_(), create_graph=True).requires_grad]

    in_both(program)


@pytest.mark.thorough
def test_gradcheck() -> None:
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    w = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    f = lambda x, w: (x @ w).tanh() * x[0]  # noqa: E731
    assert torch.autograd.gradcheck(f, (x, w)) and torch.autograd.gradgradcheck(f, (x, w))

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    with pytest.raises(torch.autograd.GradcheckError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(Wrong.apply, x)


def test_forward_mode() -> None:
    def program(t: Any) -> list[Any]:
        fw = t.autograd.forward_ad
        x, v = t.tensor([0.5, 2.0], requires_grad=True), t.tensor([1.0, -1.0])
        with fw.dual_level():
            d = fw.make_dual(x, v)
            out = (d.sin() * d)[1:] + d.sum()
            primal, tangent = fw.unpack_dual(out)
            free = fw.unpack_dual(t.ones(1)).tangent
        g, = t.autograd.grad(tangent.sum(), x)
        return [primal, tangent, free, g, message(lambda: fw.make_dual(x, v))]

    in_both(program)
    fw = torch.autograd.forward_ad
    with fw.dual_level():
        d = fw.make_dual(torch.ones(2), torch.ones(2))
        with torch.no_grad():
            assert fw.unpack_dual(d * 2).tangent is None
        pushed: Any = fw.unpack_dual(d * 2).tangent
        assert pushed.tolist() == [2, 2]


def test_anomalies_name_the_operation_and_its_line() -> None:
    def program(t: Any) -> list[str]:
        x = t.tensor([0.0, 1.0], requires_grad=True)
        y = (x.sqrt() * 0).sum()
        with t.autograd.detect_anomaly():
            return [message(y.backward)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        in_both(program)
    x = torch.tensor([0.0], requires_grad=True)
    y = x.log() * 0
    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match=r"ran forward at .*test_autograd.py"):
        y.backward()


def test_hooks_on_saved_tensors() -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor([1.0, 2.0], requires_grad=True)
        packed: list[Any] = []

        def pack(v: Any) -> Any:
            packed.append(v.tolist())
            return v * 10

        with t.autograd.graph.saved_tensors_hooks(pack, lambda v: v / 10):
            y = x.exp()
            z = y * x
        z.sum().backward()
        return [x.grad, len(packed)]

    in_both(program)


def test_checkpoint_computes_again() -> None:
    calls = []

    def part(x: Any) -> Any:
        calls.append(1)
        return layer(x).exp().sin()

    layer = torch.nn.Linear(3, 3)
    x = torch.ones(2, 3, requires_grad=True)
    part(x).sum().backward()
    expected = x.grad, layer.weight.grad
    x.grad = layer.weight.grad = None
    y = torch.utils.checkpoint.checkpoint(part, x, use_reentrant=False)
    assert len(calls) == 2
    y.sum().backward()
    assert len(calls) == 3
    assert torch.allclose(x.grad, expected[0]) and torch.allclose(layer.weight.grad, expected[1])  # type: ignore[arg-type]


def test_hooks_of_saved_tensors_can_be_refused() -> None:
    def program(t: Any) -> list[Any]:
        graph = t.autograd.graph

        def hooked() -> Any:
            with graph.saved_tensors_hooks(lambda x: x, lambda x: x):
                return t.ones(2, requires_grad=True).exp().requires_grad

        def outside(words: str) -> Any:
            with graph.disable_saved_tensors_hooks(words):
                return message(hooked)

        def inside() -> Any:
            with graph.saved_tensors_hooks(lambda x: x, lambda x: x), graph.disable_saved_tensors_hooks("inner"):
                return True

        with graph.disable_saved_tensors_hooks("outer"):
            nested = outside("within"), message(hooked), t.ones(2, requires_grad=True).exp().requires_grad
        decorated = graph.disable_saved_tensors_hooks("as decorator")(hooked)
        return [outside("no hooks"), message(inside), *nested, message(decorated), hooked()]

    in_both(program)
