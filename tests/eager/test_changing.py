"""Tensors outside the graph (``no_grad``, ``detach``, ``data``), and changes in place, of views too."""

from __future__ import annotations

from typing import Any

import pytest
from against_torch import in_both, message

from dualrev import eager as torch

#: The part of the message that is the same in all releases of PyTorch.
MODIFIED = len("one of the variables needed for gradient computation has been modified by an inplace operation: "
               "[torch.FloatTensor [4]]")


def test_no_grad() -> None:
    def program(t: Any) -> list[Any]:
        x = t.tensor(1.0, requires_grad=True)
        y1 = x ** 2
        with t.no_grad():
            y2 = x ** 3
            inside = [t.is_grad_enabled()]
            with t.enable_grad():
                inside += [t.is_grad_enabled(), (x * 2).requires_grad]
                with t.set_grad_enabled(False):
                    inside.append(t.is_grad_enabled())
        (y1 + y2).backward()

        @t.no_grad()
        def f() -> bool:
            return (x * 2).requires_grad

        @t.enable_grad()
        def g() -> bool:
            return (x * 2).requires_grad

        t.set_grad_enabled(False)
        outside = [t.is_grad_enabled(), g()]
        t.set_grad_enabled(True)
        with t.inference_mode():
            made = t.ones(2)
            computed = x * 2
        refusal = message(lambda: computed * x)
        return [x.grad, y2.requires_grad, inside, f(), outside, made.is_inference(), computed.is_inference(),
                t.is_grad_enabled(), refusal]

    assert in_both(program)[0].item() == 2


def test_detach_shares_storage() -> None:
    def program(t: Any) -> list[Any]:
        x = t.arange(4.0).requires_grad_()
        y = x * x
        u = y.detach()
        (u * x).sum().backward()
        assert t.equal(x.grad, u)
        x.grad = None
        y.sum().backward()
        a = t.ones(3)
        b = a.detach()
        b[0] = 7.0
        a.mul_(2)
        z = (x * 2).exp()
        z.detach().zero_()
        return [x.grad, a, b, message(lambda: z.sum().backward())[:MODIFIED]]

    in_both(program)


def test_data_changes_are_not_seen() -> None:
    def program(t: Any) -> list[Any]:
        x = t.ones(1, requires_grad=True)
        y = 2 * x
        x.data *= 100
        y.backward()
        x.data = t.tensor([5.0])
        (x * x).backward()
        return [x, x.grad, x.data.requires_grad]

    assert in_both(program)[0].item() == 5


def test_changes_in_place_are_differentiated() -> None:
    def program(t: Any) -> list[Any]:
        w = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
        results = []
        for f in (lambda h: h.add_(1).mul_(h.detach().clone()), lambda h: h.exp_(), lambda h: h.pow_(2), lambda h: h.zero_() + w,
                  lambda h: h[1:].mul_(5).sum() + h, lambda h: h.copy_(w * w), lambda h: h.fill_(2.0) * w, lambda h: h.clamp_(min=3),
                  lambda h: h.sub_(w, alpha=2), lambda h: h.div_(w), lambda h: h.relu_(), lambda h: h.view(3, 1).t().mul_(w[None])):
            w.grad = None
            h = w * 2
            out = f(h)
            ((out * out).sum() + h.sum()).backward()
            results += [w.grad.clone(), h, h.requires_grad]
        v = t.zeros(3)
        v[1] = w[0] * 3
        v[t.tensor([0, 2])] = w[1:] * 2
        row = v[1]
        v += 1
        w.grad = None
        (v * v).sum().backward()
        return [*results, v, row, w.grad, v._version]

    in_both(program)


def test_views_see_changes_of_their_base() -> None:
    def program(t: Any) -> list[Any]:
        w = t.ones(2, 3, requires_grad=True)
        base = w * 1
        column, flat = base[:, 1], base.view(6)
        base.mul_(t.arange(6.0).view(2, 3))
        flat[0] = 9.0
        (column.sum() + flat.pow(2).sum()).backward()
        a, b = t.zeros(4).split(2)
        b += 1
        return [column, flat, base, w.grad, a, b]

    in_both(program)


def test_refusals_of_changes_in_place() -> None:
    def program(t: Any) -> list[str]:
        w = t.ones(3, requires_grad=True)
        h = w * 2
        z = h * h
        h.add_(1)
        e = (w * 2).exp()
        e += 1
        return [message(lambda: w.add_(1)), message(lambda: w[0:1].zero_()), message(lambda: z.sum().backward())[:MODIFIED],
                message(lambda: e.sum().backward())[:MODIFIED], message(lambda: t.ones(2).add_(t.ones(2, 2))),
                message(lambda: t.tensor([1]).mul_(1.5))]

    in_both(program)
    h = torch.ones(3, requires_grad=True) * 2
    z = h * h
    h.add_(1)
    with pytest.raises(RuntimeError, match=r"MulBackward0, at .*test_changing.*made at .*test_changing.*changed at .*test_changing"):
        z.sum().backward()


def test_leaves_may_be_changed_without_recording() -> None:
    def program(t: Any) -> list[Any]:
        w = t.ones(3, requires_grad=True)
        with t.no_grad():
            w -= 0.5
            w[0] = 4.0
        w.sum().backward()
        return [w, w.grad, w.is_leaf]

    in_both(program)
