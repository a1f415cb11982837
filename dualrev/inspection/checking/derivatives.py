r"""The derivatives of a flat function by both engines, against finite differences and against each other.

Forward mode: :math:`J t` against extrapolated differences along :math:`t`, input by input.  Reverse mode against forward mode:
:math:`\langle c, J t \rangle = \langle J^{\mathsf T} c, t \rangle`.  Order 2: the same for :math:`x \mapsto J(x) t` and
:math:`x \mapsto J(x)^{\mathsf T} c`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.jaxprs import FlatFunction
from dualrev.engines import forward, reverse
from dualrev.inspection.checking.differences import Estimate, central, noise, one_sided, steps
from dualrev.inspection.checking.directions import normal, pair, relative, wide

T = TypeVar("T")

#: Up to so many inputs, each has a direction of its own; of more, one direction moves all.
MOST_INPUTS = {1: 12, 2: 4}


@dataclass(frozen=True)
class Mismatch:
    """A derivative that is not what was expected of it.

    ``at_kink``: the derivatives ahead of the point and behind it differ, and what came lies between them.  ``undecided``: finite
    differences do not converge, so that nothing can be said.
    """

    mode: str
    order: int
    inputs: tuple[int, ...]
    difference: float
    expected: str
    got: str
    output: str = ""
    is_reverse_against_forward: bool = False
    at_kink: bool = False
    undecided: bool = False


def push(fun: FlatFunction, xs: Sequence[jax.Array], ts: Sequence[jax.Array]) -> list[jax.Array]:
    outs, moved = forward.push_through(fun, xs, ts)
    return forward.zeros_like_outs(outs, moved)


def pull(fun: FlatFunction, xs: Sequence[jax.Array], cts: Sequence[jax.Array]) -> list[jax.Array]:
    _, tape = reverse.linearize(fun, xs, [True] * len(xs))
    return [jnp.zeros_like(x) if ct is None else ct for x, ct in zip(xs, tape.pull(*cts), strict=True)]


def compiled(fun: Callable[..., T]) -> Callable[..., T]:
    """``jax.jit`` for a function that runs a few times: the compiler optimizes nothing, which takes half of its time."""
    return jax.jit(fun, compiler_options={"xla_backend_optimization_level": 0})


class Derivatives:
    """A flat function of differentiable arrays that returns such, with its derivatives to order 2, compiled where asked for."""

    def __init__(self, fun: FlatFunction, is_compiled: bool):
        def first(xs: list[jax.Array], ts: list[jax.Array], cs: list[jax.Array]) -> list[jax.Array]:
            return [*push(fun, xs, ts), *pull(fun, xs, cs)]

        def second(xs: list[jax.Array], ts: list[jax.Array], us: list[jax.Array], cs: list[jax.Array],
                   ds: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
            n = len(cs)
            pushes, pulls = (lambda *xs: push(fun, xs, ts)), (lambda *xs: pull(fun, xs, cs))
            return [*push(pushes, xs, us), *push(pulls, xs, us)], pull(pushes, xs, ds[:n]), pull(pulls, xs, ds[n:])

        self.fun = fun
        self.value = compiled(fun) if is_compiled else fun
        self.first = compiled(first) if is_compiled else first
        self.second = compiled(second) if is_compiled else second


class Tolerances:
    """What rounding explains, for a program whose coarsest dtype has this machine epsilon."""

    def __init__(self, precision: float):
        self.precision = precision
        self.relative = float(np.clip(50 * precision ** (2 / 3), 1e-7, 0.2))
        #: Of finite differences, in units of the function's values.
        self.floor = 10 * precision / steps(precision)[-1]
        #: Of identities that hold up to rounding.
        self.exact = float(np.clip(1e4 * precision, 1e-9, 0.2))
        #: By how much the derivatives on both sides of a smooth point may differ.
        self.sides = 1e-3 if precision < 1e-10 else min(0.3, 30 * precision ** (2 / 3) + 1e-2)


def mismatches(own: Derivatives, points: Sequence[jax.Array], outs: Sequence[jax.Array], seed: int, precision: float,
               along: Sequence[jax.Array] | None = None) -> list[Mismatch]:
    """What is wrong with the derivatives of order 1; ``outs`` are the values at the point.

    ``along``: the one direction to look at, instead of random ones for each input.
    """
    if not any(x.size for x in outs) or not any(x.size for x in points):
        return []
    return _Comparison(own, list(points), list(outs), Tolerances(precision)).first(np.random.default_rng(seed), along)


def second_mismatches(own: Derivatives, points: Sequence[jax.Array], outs: Sequence[jax.Array], seed: int, precision: float,
                      compares: bool = True) -> list[Mismatch]:
    """What is wrong with the derivatives of order 2; without ``compares``, modes are compared with each other alone."""
    if not any(x.size for x in outs) or not any(x.size for x in points):
        return []
    return _Comparison(own, list(points), list(outs), Tolerances(precision)).second(np.random.default_rng(seed), compares)


def groups(points: Sequence[jax.Array], order: int) -> list[tuple[int, ...]]:
    """The inputs that are moved together."""
    filled = [i for i, x in enumerate(points) if x.size]
    return [(i,) for i in filled] if len(filled) <= MOST_INPUTS[order] else [tuple(filled)]


class _Comparison:
    def __init__(self, own: Derivatives, points: list[jax.Array], outs: list[jax.Array], tol: Tolerances):
        self.own, self.points, self.outs, self.tol = own, points, outs, tol

    def first(self, rng: np.random.Generator, along: Sequence[jax.Array] | None = None) -> list[Mismatch]:
        found: list[Mismatch] = []
        cs = [normal(rng, x) for x in self.outs]
        directions = [relative(rng, x) for x in self.points] if along is None else along
        for group in groups(self.points, 1) if along is None else [tuple(range(len(self.points)))]:
            ts = [t if i in group else jnp.zeros_like(t) for i, t in enumerate(directions)]
            both = self.own.first(self.points, ts, cs)
            pushed, pulled = both[: len(cs)], both[len(cs):]
            ahead = self._against_differences(self.own.value, self.outs, pushed, ts, 1, "forward", group)
            identity = self._identity(cs, pushed, pulled, ts, 1, "reverse", group, lambda *xs, ts=ts: self.own.first(
                list(xs), ts, cs)[: len(cs)])
            if ahead is not None and identity is None and not ahead.undecided:
                ahead = replace(ahead, mode="forward and reverse")
            found.extend(m for m in (ahead, identity) if m is not None)
        return found

    def second(self, rng: np.random.Generator, compares: bool) -> list[Mismatch]:
        found: list[Mismatch] = []
        n = len(self.outs)
        cs = [normal(rng, x) for x in self.outs]
        ts = [relative(rng, x) for x in self.points]
        directions = [relative(rng, x) for x in self.points]
        ds = [normal(rng, x) for x in (*self.outs, *self.points)]

        def firsts(*xs: jax.Array) -> list[jax.Array]:
            return list(self.own.first(list(xs), ts, cs))

        here = firsts(*self.points)
        for group in groups(self.points, 2):
            us = [t if i in group else jnp.zeros_like(t) for i, t in enumerate(directions)]
            seconds, over_push, over_pull = self.own.second(self.points, ts, us, cs, ds)
            over = [("forward", slice(0, n), over_push), ("reverse", slice(n, None), over_pull)]
            for name, part, pulled in over:
                ahead = self._against_differences(lambda *xs, part=part: firsts(*xs)[part], here[part], seconds[part], us, 2,
                                                  f"forward over {name}", group) if compares else None
                identity = self._identity(ds[part], seconds[part], pulled, us, 2, f"reverse over {name}", group,
                                          lambda *xs, part=part, us=us: self.own.second(list(xs), ts, us, cs, ds)[0][part])
                found.extend(m for m in (ahead, identity) if m is not None)
        return found

    def _identity(self, cs: Sequence[jax.Array], pushed: Sequence[jax.Array], pulled: Sequence[jax.Array], ts: Sequence[jax.Array],
                  order: int, mode: str, group: tuple[int, ...], push_at: FlatFunction) -> Mismatch | None:
        """Whether ``<c, J t> = <Jᵀ c, t>``, up to the rounding of sums of their terms and that of the push itself."""
        expected, got = pair(cs, pushed), pair(pulled, ts)
        scale = sum(float(np.sum(np.abs(wide(u) * wide(v)))) for us, vs in ((cs, pushed), (pulled, ts))
                    for u, v in zip(us, vs, strict=True))
        if abs(expected - got) <= self.tol.exact * scale or not np.isfinite(scale):
            return None
        rounding = sum(n * float(np.sum(np.abs(wide(c)))) for n, c in zip(noise(push_at, self.points, ts, self.tol.precision), cs,
                                                                          strict=True))
        if abs(expected - got) <= 30 * rounding:
            return None
        return Mismatch(mode, order, group, abs(expected - got), f"<c, J t> = {expected:.6g} by the push", f"<Jᵀ c, t> = {got:.6g}",
                        is_reverse_against_forward=True)

    def _against_differences(self, value: FlatFunction, here: Sequence[jax.Array], got: Sequence[jax.Array], ts: Sequence[jax.Array],
                             order: int, mode: str, group: tuple[int, ...]) -> Mismatch | None:
        """The entry that is furthest from finite differences, if one is further than rounding explains."""
        noises: list[float] | None = None
        for _ in range(2):  # the noise of the function is measured where it matters
            estimate = central(value, self.points, ts, self.tol.precision, noises)
            worst = self._worst(estimate, value, here, got, ts, order, mode, group)
            if worst is None or noises is not None:
                return worst
            noises = noise(value, self.points, ts, self.tol.precision)
        return worst

    def _worst(self, estimate: Estimate, value: FlatFunction, here: Sequence[jax.Array], got: Sequence[jax.Array],
               ts: Sequence[jax.Array], order: int, mode: str, group: tuple[int, ...]) -> Mismatch | None:
        worst: Mismatch | None = None
        sides: tuple[list[np.ndarray], list[np.ndarray]] | None = None
        all_outs = zip(estimate.values, estimate.errors, map(wide, got), map(wide, here), strict=True)
        for j, (expected, error, came, at) in enumerate(all_outs):
            if not came.size:
                continue
            with np.errstate(all="ignore"):
                off = np.nan_to_num(np.abs(came - expected), nan=np.inf)
                scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
                rounding = self.tol.relative * scale + self.tol.floor * float(np.max(np.abs(at), initial=0.0, where=np.isfinite(at)))
                far = off > rounding
                wrong = off > rounding + 20 * error
                unsure = far & ~wrong & ~(error <= 0.05 * scale)
            if not (wrong | unsure).any():
                continue
            if sides is None:
                sides = one_sided(value, self.points, ts, self.tol.precision)
            at_kink = self._is_between(came, sides[0][j], sides[1][j], wrong | unsure)
            which = int(np.argmax(np.where(wrong if wrong.any() else unsure, np.where(np.isfinite(off), off, 1e300), -1.0)))
            index = np.unravel_index(which, came.shape)
            found = Mismatch(mode, order, group, float(off[index]), f"{expected[index]:.6g} by finite differences",
                             f"{came[index]:.6g}", f"output {j}{list(map(int, index)) or ''}",
                             at_kink=at_kink, undecided=not wrong.any())
            if worst is None or (worst.at_kink or worst.undecided, -worst.difference) > (
                    found.at_kink or found.undecided, -found.difference):
                worst = found
        return worst

    def _is_between(self, came: np.ndarray, ahead: np.ndarray, behind: np.ndarray, where: np.ndarray) -> bool:
        """Whether the point is a kink of all these entries: derivatives on both sides differ, and what came is between them."""
        parts = [(came.real, ahead.real, behind.real)] + ([(came.imag, ahead.imag, behind.imag)] if np.iscomplexobj(came) else [])
        kink, inside = np.zeros(came.shape, bool), np.ones(came.shape, bool)
        with np.errstate(all="ignore"):
            for x, a, b in parts:
                slack = self.tol.sides * np.maximum(np.abs(a), np.abs(b)) + self.tol.floor
                kink |= np.abs(a - b) > slack
                inside &= (x >= np.minimum(a, b) - slack) & (x <= np.maximum(a, b) + slack)
        return bool((kink & inside)[where].all())
