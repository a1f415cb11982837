"""What the fuzzer asks of a program: modes of differentiation, each with what it is compared with.

A mode is a function of a :class:`Question` that gives what is to be compared.  To add one::

    @mode("jet", order=2)
    def jet(q):
        yield Compared("second coefficient", [second coefficient along q.t], q.push_of_push)

The question's own answers come from jax, evaluated with NumPy as the mode is (:mod:`host_trace`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from agreement import MOST_PUSHES, TOLERANCES, assert_close, directions
from host_trace import arrays, on_host
from random_programs import Array, Program

import dualrev
from dualrev._jax.traces import evaluating
from dualrev.engines.direction_blocks import Blocks, identity, stacked
from dualrev.engines.laplacian import SecondDerivatives
from dualrev.modes import evaluate


class Compared(NamedTuple):
    """What a mode gives, and what jax gives; ``floor`` is the size of what may have cancelled."""

    what: str
    got: list[Array]
    expected: list[Array]
    floor: float = 0.0


class Question:
    """A program at a point, with directions, and the derivatives that jax gives.

    jax's pulls take ten times as long as its pushes here.  Unless ``is_full``, a pull is compared by its product with a random
    direction: ⟨Jᵀ ct, t⟩ = ⟨ct, J t⟩.
    """

    def __init__(self, program: Program, seed: int, is_full: bool = False):
        self.program = program
        self.is_full = is_full
        self.x = program.inputs
        self.t = directions(self.x, seed)
        self.ct = directions(program.out, seed + 1)

    def in_jax(self, x: Any) -> Array:
        return self.program.run(x, in_jax=True)

    def _pulled(self, x: Any) -> Any:
        return jax.vjp(self.in_jax, x)[1](self.ct)[0]

    @functools.cached_property
    def _both(self) -> tuple[Array, Array]:
        with on_host():
            both: tuple[Array, Array] = arrays(jax.jvp(self.in_jax, (self.x,), (self.t,)))
            return both

    @property
    def out(self) -> Array:
        return self._both[0]

    @property
    def push(self) -> list[Array]:
        """J t."""
        return [self._both[1]]

    @functools.cached_property
    def pull(self) -> list[Array]:
        """Jᵀ ct."""
        with on_host():
            found: list[Array] = arrays(self._pulled(self.x))
            return found

    @functools.cached_property
    def push_of_pull(self) -> list[Array]:
        """The derivative of Jᵀ ct along t, which is also the pull of ct through x -> J t."""
        with on_host():
            found: list[Array] = arrays(jax.jvp(self._pulled, (self.x,), (self.t,))[1])
            return found

    @functools.cached_property
    def push_of_push(self) -> list[Array]:
        """D² f[t, t]."""
        with on_host():
            return [arrays(jax.jvp(lambda x: jax.jvp(self.in_jax, (x,), (self.t,))[1], (self.x,), (self.t,))[1])]

    def compare_pull(self, what: str, cts: list[Array]) -> Compared:
        """Jᵀ ct, given as ``cts``, with jax's."""
        return self._paired(what, cts, self.push, lambda: self.pull)

    def compare_second(self, what: str, cts: list[Array]) -> Compared:
        """The derivative of Jᵀ ct along t, given as ``cts``, with jax's."""
        return self._paired(what, cts, self.push_of_push, lambda: self.push_of_pull)

    def _paired(self, what: str, cts: list[Array], pushed: list[Array], in_full: Callable[[], list[Array]]) -> Compared:
        cts = arrays(cts)
        if self.is_full or not all(np.isfinite(ct).all() for ct in cts):
            return Compared(what, cts, in_full())
        for i, (ct, x) in enumerate(zip(cts, self.x, strict=True)):
            assert ct.shape == x.shape, f"{what}, array {i}: expected {x.shape}, got {ct.shape}"
            assert ct.dtype == x.dtype, f"{what}, array {i}: expected {x.dtype}, got {ct.dtype}"
        wide = [np.asarray(ct, np.complex128) * np.asarray(t, np.complex128) for ct, t in zip(cts, self.t, strict=True)]
        expected = np.sum(np.asarray(self.ct, np.complex128) * np.asarray(pushed[0], np.complex128)).real
        size = float(sum(np.abs(w).sum() for w in wide) + np.abs(self.ct * np.asarray(pushed[0])).sum())
        return Compared(what, [np.asarray(sum(w.sum() for w in wide)).real], [np.asarray(expected)], size)

    @functools.cached_property
    def has_answer(self) -> bool:
        """Whether jax's own derivatives are finite, so that there is something to compare with."""
        found = [self.out, *self.push]
        return all(bool(np.isfinite(np.asarray(x)).all()) for x in found)


class Mode(NamedTuple):
    """A mode of differentiation in the fuzzer."""

    check: Callable[[Question], Iterator[Compared]]
    order: int
    #: Whether the mode may be asked; by default, of every program whose derivatives of this order make sense.
    applies: Callable[[Program], bool]
    #: How often the mode is drawn, compared with others.
    weight: float


#: Every mode by its name.
MODES: dict[str, Mode] = {}


def mode(name: str, order: int = 1, applies: Callable[[Program], bool] = lambda _: True, weight: float = 1.0) -> Callable[[Any], Any]:
    """Register a mode."""
    def registered(check: Callable[[Question], Iterator[Compared]]) -> Callable[[Question], Iterator[Compared]]:
        MODES[name] = Mode(check, order, applies, weight)
        return check

    return registered


def ask(name: str, question: Question, is_eager: bool = False) -> bool:
    """Compare a mode with jax; False where there is nothing to compare: jax's answer is not finite, or the mode does not apply.

    The mode runs under :mod:`host_trace`, which compiles nothing; with ``is_eager``, as un-jitted programs of jax do.
    """
    checked, program = MODES[name], question.program
    if not question.has_answer or program.order < checked.order or not checked.applies(program):
        return False
    # Entries that cancel are compared with the size of what cancelled: the largest derivative of the same order.
    dtypes = [x.dtype for x in (*question.x, question.out)]
    tolerance = 100 * max(program.rtol, *(TOLERANCES[str(dtype)] for dtype in dtypes))
    floor = max(1e-6, 4 * max(float(jnp.finfo(dtype).eps) for dtype in dtypes) / tolerance)
    with contextlib.nullcontext() if is_eager else on_host():
        found = [each._replace(got=arrays(list(each.got))) for each in checked.check(question)]
    if not all(np.isfinite(np.asarray(y)).all() for each in found for y in each.expected):
        return False
    for what, got, expected, size in found:
        for i, (x, y) in enumerate(zip(got, expected, strict=True)):
            where = f"{name}, {what}, array {i}"
            assert x.dtype == y.dtype, f"{where}: expected {y.dtype}, got {x.dtype}"
            assert x.shape == y.shape, f"{where}: expected {y.shape}, got {x.shape}"
            assert_close(x, y, tolerance, where, floor=max(floor, size))
    return True


def _is_small(program: Program) -> bool:
    """The forward engine pulls by a push for each input."""
    return program.can_be_batched and sum(x.size for x in program.inputs) <= MOST_PUSHES


@mode("forward")
def _forward(q: Question) -> Iterator[Compared]:
    yield Compared("push", [dualrev.jvp(q.program.run, (q.x,), (q.t,))[1]], q.push)


@mode("forward, pull", applies=_is_small, weight=0.3)
def _forward_pull(q: Question) -> Iterator[Compared]:
    yield q.compare_pull("pull", dualrev.vjp(q.program.run, q.x, engine="forward")[1](q.ct)[0])


@mode("reverse")
def _reverse(q: Question) -> Iterator[Compared]:
    linear = dualrev.linearize(q.program.run, q.x)[1]
    yield q.compare_pull("pull", linear.T(q.ct)[0])
    yield Compared("push", [linear(q.t)], q.push)


@mode("forward over reverse", order=2)
def _forward_over_reverse(q: Question) -> Iterator[Compared]:
    found = dualrev.jvp(lambda x: dualrev.vjp(q.program.run, x)[1](q.ct)[0], (q.x,), (q.t,))[1]
    yield q.compare_second("push of pull", found)


@mode("reverse over forward", order=2)
def _reverse_over_forward(q: Question) -> Iterator[Compared]:
    def push(x: Any) -> Array:
        return dualrev.jvp(q.program.run, (x,), (q.t,))[1]

    yield q.compare_second("pull of push", dualrev.vjp(push, q.x)[1](q.ct)[0])


@mode("reverse over reverse", order=2)
def _reverse_over_reverse(q: Question) -> Iterator[Compared]:
    def pull(x: Any) -> list[Array]:
        found: list[Array] = dualrev.vjp(q.program.run, x)[1](q.ct)[0]
        return found

    # The Hessian of Re(ct·f) is symmetric: its pull of t is its push of t, with the pairing Re(Σ u·v) that has no conjugate.
    yield q.compare_second("pull of pull", dualrev.vjp(pull, q.x)[1](q.t)[0])


@mode("forward over forward", order=2)
def _forward_over_forward(q: Question) -> Iterator[Compared]:
    def push(x: Any) -> Array:
        return dualrev.jvp(q.program.run, (x,), (q.t,))[1]

    yield Compared("push of push", [dualrev.jvp(push, (q.x,), (q.t,))[1]], q.push_of_push)


def _is_real(program: Program) -> bool:
    """Local Jacobians of complex values are complex-linear in few programs."""
    return _is_small(program) and not any(jnp.iscomplexobj(x) for x in (*program.inputs, *[op.out for op, _ in program.operations]))


@mode("elimination", applies=_is_real, weight=0.1)
def _elimination(q: Question) -> Iterator[Compared]:
    orders: tuple[Any, ...] = ("forward", "reverse", "markowitz")
    order = orders[len(q.program.operations) % 3]
    try:
        blocks = dualrev.jacobian(q.program.run, engine="elimination", order=order)(q.x)
    except dualrev.errors.NoDerivativeError:  # an operation between complex numbers, inside one between real ones
        return
    pushed = [jnp.tensordot(block, t.astype(block.dtype), t.ndim) for block, t in zip(blocks, q.t, strict=True)]
    yield Compared("J t", [functools.reduce(jnp.add, [x.astype(q.out.dtype) for x in pushed])], q.push)
    yield q.compare_pull("ct J", [jnp.tensordot(q.ct.astype(block.dtype), block, q.ct.ndim) for block in blocks])


@mode("Taylor", order=2)
def _taylor(q: Question) -> Iterator[Compared]:
    still = [jnp.zeros_like(t) for t in q.t]
    first, second = dualrev.jet(q.program.run, (q.x,), ([q.t, still],))[1]
    yield Compared("first derivative", [first], q.push)
    yield Compared("second derivative", [second], q.push_of_push)


@mode("Laplacian", order=2)
def _laplacian(q: Question) -> Iterator[Compared]:
    parts = [(t[None], jnp.zeros_like(t)) for t in q.t]
    found = evaluate(SecondDerivatives(1), q.program.run, (q.x,), (parts,))[1]
    for what, part, expected in zip(("first derivatives", "their sum of second ones"), found or (None, None),
                                    (q.push, q.push_of_push), strict=True):
        # Without parts, or where one of them is zero, a value has nothing to show.
        yield Compared(what, [jnp.zeros_like(q.out) if part is None else part.reshape(q.out.shape)], expected)


@mode("Laplacian in blocks", applies=_is_real, order=2, weight=0.2)
def _laplacian_in_blocks(q: Question) -> Iterator[Compared]:
    """Along a multiple of each unit vector: in blocks, and stacked as above."""
    avals = [jax.core.ShapedArray(x.shape, x.dtype) for x in q.x]
    n = sum(a.size for a in avals)
    if not 0 < n <= 64:
        return
    blocks = [Blocks([(key, array * t) for key, array in b.items()], b.sizes) for b, t in zip(identity(avals), q.t, strict=True)]
    parts = [(b, jnp.zeros_like(t)) for b, t in zip(blocks, q.t, strict=True)]
    found = evaluate(SecondDerivatives(n), q.program.run, (q.x,), (parts,))[1]
    stacks = [(stacked(b), jnp.zeros_like(t)) for b, t in zip(blocks, q.t, strict=True)]
    dense = evaluate(SecondDerivatives(n), q.program.run, (q.x,), (stacks,))[1]
    shapes = (n, *q.out.shape), q.out.shape
    for what, part, expected, shape in zip(("derivatives in blocks", "sum of second ones in blocks"), found or (None, None),
                                           dense or (None, None), shapes, strict=True):
        got, wanted = [jnp.zeros(shape, q.out.dtype) if x is None else stacked(x) if isinstance(x, Blocks) else x
                       for x in (part, expected)]
        yield Compared(what, [got], arrays([wanted]))


@mode("pattern", applies=_is_real, weight=0.1)
def _pattern(q: Question) -> Iterator[Compared]:
    with evaluating():  # patterns are found before a program runs, with numbers
        patterns = [np.asarray(pattern.todense()) for pattern in dualrev.sparse.jacobian_pattern(q.program.run)(q.x)]
    is_used = np.zeros(q.out.shape, bool)
    for pattern in patterns:
        is_used |= pattern.any(tuple(range(q.out.ndim, pattern.ndim)))
    yield Compared("outputs that depend on no input", [np.where(is_used, 0, q.push[0])], [np.zeros_like(q.push[0])])
