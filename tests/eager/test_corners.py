"""Corner cases: the same numbers as PyTorch's, or its refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from against_torch import in_both, message


def told(fun: Callable[[], Any]) -> str:
    """The first line of what is raised, or nothing."""
    try:
        fun()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


def test_quotients_may_be_changed() -> None:
    def program(t: Any) -> Any:
        a, b = t.tensor([1.0, 2.0], requires_grad=True), t.tensor([3.0, 4.0], requires_grad=True)
        y = a / b
        y *= 3.0
        y.sum().backward()
        c = a * 2
        z = c / 4.0
        c.zero_()
        z.sum().backward(inputs=[a])
        d = a * 2
        w = d / b
        d.zero_()
        return a.grad, b.grad, told(lambda: w.sum().backward())[:80]

    in_both(program)


def test_gradients_follow_changes_in_place() -> None:
    def program(t: Any) -> Any:
        x, y = t.tensor([1.0, 2.0], requires_grad=True), t.tensor([3.0, 4.0], requires_grad=True)
        h = x * 2
        h.retain_grad()
        h.mul_(3)
        h.sum().backward()
        z = (x * y).sum()
        y.requires_grad_(False)
        z.backward()
        w = t.tensor([1.0, 2.0], requires_grad=True)
        (w * w).sum().backward(inputs=[w, w])
        return x.grad, h.grad, y.grad is None, w.grad

    in_both(program)


def test_views_that_may_not_be_changed() -> None:
    def program(t: Any) -> Any:
        h = t.ones(4, requires_grad=True) * 2
        with t.no_grad():
            quiet = h[:2]
        c, _ = h.chunk(2)
        wide = t.ones(1).expand(3)
        plain = t.zeros(4)
        part = plain.chunk(2)[0]
        part.add_(1)
        s = t.ones(2, requires_grad=True) * 1
        s[0] = 3.0
        return (told(lambda: quiet.mul_(2)), told(lambda: c.mul_(2)), told(lambda: wide.add_(1)), plain, type(s.grad_fn).__name__,
                t.ones(1).expand(1).add_(1))

    in_both(program)


def test_hooks_that_return_something_else() -> None:
    def program(t: Any) -> Any:
        found = []
        for change in (lambda g: g[:1], lambda g: g.double()):
            x = t.ones(2, requires_grad=True)
            x.register_hook(change)
            found.append(told((x * 2).sum().backward))
        return found

    in_both(program)


@pytest.mark.parametrize("given", ["g[:2]", "g.unsqueeze(0).expand(3, 4)", "3.0"])
def test_gradients_of_functions_fit(given: str) -> None:
    def program(t: Any) -> Any:
        class Twice(t.autograd.Function):  # type: ignore[name-defined, misc]
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return eval(given, {"g": g})

        x = t.ones(4, requires_grad=True)
        y = Twice.apply(x)
        return type(y.grad_fn).__name__, told(y.sum().backward), x.grad if x.grad is not None else 0

    in_both(program)


def test_tangents_of_views_changed_in_place() -> None:
    def program(t: Any) -> Any:
        ad = t.autograd.forward_ad
        with ad.dual_level():
            x = ad.make_dual(t.tensor([1.0, 2.0, 3.0, 4.0]), t.ones(4))
            b = t.zeros(4)
            b[:2] = x[:2]
            b[1:].mul_(2)
            v = x[2:]
            x.mul_(5)
            return (*ad.unpack_dual(b * 3), *ad.unpack_dual(v), *ad.unpack_dual(x))

    in_both(program)


def test_strict_functions_refuse_what_does_not_depend() -> None:
    def program(t: Any) -> Any:
        f, x = t.autograd.functional, t.ones(3)
        return [told(lambda: f.jacobian(lambda x: t.ones(3), x, strict=True)),
                told(lambda: f.jacobian(lambda x: t.ones(3, requires_grad=True) * 2, x, strict=True)),
                told(lambda: f.vjp(lambda x: t.ones(3, requires_grad=True) * 2, x, t.ones(3), strict=True)),
                told(lambda: f.hessian(lambda x: x.sum(), x, strict=True)), f.hessian(lambda x: (x ** 2).sum(), x, strict=True)]

    in_both(program)


def test_static_arguments_of_other_types_are_others() -> None:
    def program(t: Any) -> Any:
        i = t.tensor([1, 2], dtype=t.int32)
        a = t.add(t.ones(2), t.ones(2), alpha=2.0)
        b = t.ones(2, dtype=t.bfloat16) * t.tensor(3.0)
        return a, str(t.add(i, i, alpha=2).dtype), str(b.dtype)

    in_both(program)


def test_the_message_for_changed_values() -> None:
    def program(t: Any) -> Any:
        y = t.ones(2, requires_grad=True).exp()
        y.add_(1)
        return message(y.sum().backward)

    in_both(program)
