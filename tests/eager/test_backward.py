"""``backward`` and ``grad``: weights, accumulation, freed graphs, higher derivatives, hooks, threads."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
from against_torch import in_both, message

from dualrev import eager as torch

pytestmark = pytest.mark.thorough


def test_backward_with_a_gradient() -> None:
    def program(t: Any) -> list[Any]:
        results = []
        for weight in (t.tensor([1.0, 1.0]), t.tensor([0.1, 10.0]), None):
            a = t.tensor([2.0, 3.0], requires_grad=True)
            b = t.tensor([6.0, 4.0], requires_grad=True)
            Q = 3 * a ** 3 - b ** 2
            if weight is None:
                Q.sum().backward()
            else:
                Q.backward(gradient=weight)
            results += [a.grad, b.grad]
        x, y = t.randn(3, requires_grad=True), t.randn(3, requires_grad=True)
        z = x * y
        z.backward(t.tensor([1.0, 1.0, 1.0]))
        assert t.equal(x.grad, y.detach()) and t.equal(y.grad, x.detach())
        return results

    results = in_both(program)
    assert [r.tolist() for r in results] == [[36, 81], [-12, -8], pytest.approx([3.6, 810]), pytest.approx([-1.2, -80]), [36, 81],
                                             [-12, -8]]


def test_weights_are_those_of_a_sum() -> None:
    x = torch.tensor([0.3, 0.7], requires_grad=True)
    w = torch.tensor([2.0, -1.0])
    x.sin().backward(w)
    first, x.grad = x.grad, None
    (x.sin() * w).sum().backward()
    assert torch.allclose(first, x.grad)


def test_errors_say_what_to_do() -> None:
    def program(t: Any) -> list[str]:
        x = t.ones(3, requires_grad=True)
        return [message(lambda: (x * 2).backward()), message(lambda: (x * 2).backward(t.ones(2))),
                message(lambda: t.ones(1).backward())]

    in_both(program)
    with pytest.raises(RuntimeError, match=r"call .sum\(\).backward\(\)"):
        (torch.ones(3, requires_grad=True) * 2).backward()


def test_gradients_accumulate() -> None:
    def program(t: Any) -> list[Any]:
        x = t.ones(2, 2, requires_grad=True)
        (3 * (x + 2) ** 2).mean().backward()
        seen = [x.grad.clone()]
        same = x.grad
        for _ in range(2):
            x.sum().backward()
            seen.append(x.grad.clone())
        assert same is x.grad
        x.grad.zero_()
        seen.append(x.grad.clone())
        x.grad = None
        x.sum().backward()
        return [*seen, x.grad]

    assert [g[0, 0].item() for g in in_both(program)] == [4.5, 5.5, 6.5, 0.0, 1.0]


def test_a_graph_is_freed() -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor(2.0, requires_grad=True)
        y = x * x
        y.backward(retain_graph=True)
        y.backward()
        text = message(y.backward)
        z = x + 1  # saves nothing
        z.backward()
        z.backward()
        return [x.grad, text]

    in_both(program)
    x = torch.tensor(2.0, requires_grad=True)
    y = x.exp()
    y.backward()
    with pytest.raises(RuntimeError,
                       match=r"ExpBackward0, made at .*test_backward.py:\d+.*freed by the backward at .*test_backward.py"):
        y.backward()


def test_derivatives_of_derivatives() -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor([0.4, 1.3], requires_grad=True)
        results = []
        for f in (lambda x: x.exp() * x.sin(), lambda x: x ** 4, lambda x: x.tanh() / (1 + x), t.nn.functional.gelu,
                  lambda x: x.softmax(0) * x, lambda x: t.cat([x, x * x])[1:], lambda x: x.max() * x,
                  lambda x: x[:, None] @ x[None] / x, lambda x: x.norm() * x, lambda x: x.logsumexp(0),
                  lambda x: t.where(x > 1, x ** 3, x.sqrt())):
            first, = t.autograd.grad(f(x).sum(), x, create_graph=True)
            second, = t.autograd.grad(first.pow(2).sum(), x, create_graph=True)
            third, = t.autograd.grad(second.sum(), x)
            results += [first, second, third]
        y = (x ** 3).sum()
        y.backward(create_graph=True)
        gradient = x.grad
        x.grad = None
        gradient.sum().backward()
        return [*results, gradient, x.grad]

    in_both(program, 1e-3)


def test_grad_of_chosen_inputs() -> None:
    def program(t: Any) -> list[Any]:
        x, y, unused = t.ones(2, requires_grad=True), t.full((2,), 3.0, requires_grad=True), t.ones(1, requires_grad=True)
        h = x * y
        out = (h * h).sum()
        inner = t.autograd.grad(out, h, retain_graph=True)
        several = t.autograd.grad([out, h], [x, y], [None, t.ones(2)], retain_graph=True)
        missing = t.autograd.grad(out, [x, unused], allow_unused=True, retain_graph=True)
        texts = [message(lambda: t.autograd.grad(out, unused, retain_graph=True)), message(lambda: t.autograd.grad(out, t.ones(1)))]
        batched = t.autograd.grad(h, x, t.eye(2), retain_graph=True, is_grads_batched=True)
        out.backward(inputs=[x])
        return [inner, several, missing, texts, batched, x.grad, y.grad]

    in_both(program)


def test_gradients_of_complex_tensors_are_those_of_pytorch() -> None:
    def program(t: Any) -> list[Any]:
        z = t.tensor([1.0 + 2.0j, -0.5 + 1.0j], requires_grad=True)
        seen: list[Any] = []
        y = z * z * (2 - 1j)
        y.register_hook(lambda g: seen.append(g.clone()))
        loss = (y.abs() ** 2).sum() + y.real.sum() + 3 * z.imag.sum()
        first, = t.autograd.grad(loss, z, create_graph=True)
        second, = t.autograd.grad((first.abs() ** 2).sum(), z)
        (z * (1 + 1j)).backward(t.tensor([1.0 + 1.0j, 2.0 - 1.0j]))
        return [first, second, z.grad, *seen[:1]]

    in_both(program, 1e-4)


def test_copies_and_pickles() -> None:
    def program(t: Any) -> list[Any]:
        model = t.nn.Linear(2, 2)
        model(t.ones(1, 2)).sum().backward()
        twin = copy.deepcopy(model)
        with t.no_grad():
            twin.weight.zero_()
        return [model.weight.grad, twin.weight.grad, twin.weight, twin.weight.requires_grad, type(twin.weight) is t.nn.Parameter,
                pickle.loads(pickle.dumps(t.ones(2, requires_grad=True))),
                message(lambda: copy.deepcopy(t.ones(2, requires_grad=True) * 2))[:40]]

    in_both(program)


def test_hooks_of_tensors_and_nodes() -> None:
    def program(t: Any) -> list[Any]:
        seen: list[Any] = []
        x = t.tensor([1.0, 2.0], requires_grad=True)
        y = x * 3
        y.retain_grad()
        y.register_hook(lambda g: g * 2)
        x.register_hook(lambda g: seen.append(g.clone()))
        x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        z = y.sum()
        z.grad_fn.register_prehook(lambda grads: (grads[0] * 5,))
        z.grad_fn.register_hook(lambda ins, outs: seen.append(outs[0].clone()))
        handle = x.register_hook(lambda g: g * 0)
        handle.remove()
        z.backward()
        return [*seen, x.grad, y.grad, y.retains_grad]

    in_both(program)


def test_hooks_of_modules() -> None:
    def program(t: Any) -> list[Any]:
        seen: list[Any] = []
        layer = t.nn.Linear(2, 2)
        with t.no_grad():
            layer.weight.copy_(t.tensor([[1.0, 2.0], [3.0, 4.0]]))
            layer.bias.zero_()
        layer.register_forward_hook(lambda m, args, out: out * 2)
        layer.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
        layer.register_full_backward_hook(lambda m, ins, outs: seen.extend([ins[0].clone(), outs[0].clone()]))
        x = t.ones(1, 2, requires_grad=True)
        out = layer(x)
        out.sum().backward()
        return [out, x.grad, layer.weight.grad, *seen]

    in_both(program)


def test_long_chains_do_not_recurse() -> None:
    x = torch.ones(1, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    del y


def test_threads_accumulate_into_one_leaf() -> None:
    x = torch.ones(3, requires_grad=True)

    def work() -> None:
        assert torch.is_grad_enabled()
        for _ in range(20):
            (x * x).sum().backward()

    with torch.no_grad():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert x.grad.tolist() == [160.0] * 3
