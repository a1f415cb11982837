"""Checks of derivatives that share nothing with the code they check: finite differences, and the transpose identity.

``check_grads`` checks a function, ``check_rule`` a rule; both go through both modes to order 2 and say which mode, which input and
which element is wrong.  ``check_processes`` compares what the processes of one run are about to use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.tree_util import keystr, tree_flatten, tree_leaves_with_path

from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.primitives import Primitive
from dualrev._jax.trees import PyTree
from dualrev.errors import DerivativeError as DerivativeError
from dualrev.functional.flat_calls import FlatCall
from dualrev.inspection.checking.derivatives import pull, push
from dualrev.inspection.checking.directions import normal, pair, wide
from dualrev.inspection.checking.processes import check_processes as check_processes
from dualrev.programs.functions import as_arrays

__all__ = ["DerivativeError", "check_grads", "check_processes", "check_rule"]

#: Most input elements that are tried one by one to find which is wrong.
ELEMENTS_SEARCHED = 1024


def check_grads(fun: Callable[..., PyTree], args: Sequence[PyTree], order: int = 2, modes: Sequence[str] = ("fwd", "rev"), *,
                atol: float | None = None, rtol: float | None = None, eps: float | None = None, seed: int = 0) -> None:
    r"""Check the derivatives of a function at a point, in both modes, to ``order``.

    In random directions :math:`t` and :math:`c`:  :math:`J t \approx (f(x + \epsilon t) - f(x - \epsilon t)) / 2\epsilon`, and
    :math:`\langle c, J t\rangle = \langle J^{\mathsf T} c, t\rangle` with :math:`\langle u, v \rangle = \mathrm{Re} \sum u_i v_i`;
    then the same for :math:`x \mapsto J(x)\,t` and :math:`x \mapsto J(x)^{\mathsf T} c`.

    Args:
      fun: function of arrays or pytrees of them; those of integers stay as they are.
      args: the point.
      order: the highest order of derivative to check.
      modes: ``"fwd"``, ``"rev"`` or both.
      atol, rtol: tolerances; by default they follow from the precision of the inputs.
      eps: the step of the differences; by default the cube root of the machine epsilon.
      seed: seed of the random directions.

    Raises:
      DerivativeError: says the mode, the order, the input and its element, what was expected and what came.

    >>> import jax.numpy as jnp
    >>> from dualrev.testing import check_grads
    >>> check_grads(jnp.sin, (0.5,), order=1) is None
    True

    Source: [GriewankWalther2008, ch. 3]: the transpose identity.
    """
    unknown = [m for m in modes if m not in ("fwd", "rev")]
    if unknown or not modes:
        raise ValueError(f"modes must be 'fwd', 'rev' or both; got {modes!r}")
    flat, in_tree = tree_flatten(tuple(args))
    paths = [keystr(path) for path, _ in tree_leaves_with_path(tuple(args))]
    call = FlatCall(fun, in_tree, False)
    flat = as_arrays(flat)
    moving = [i for i, x in enumerate(flat) if is_differentiable(typeof(x))]
    if not moving:
        raise ValueError("check_grads needs an input of floating or complex dtype; got none")

    def of_moving(*xs: jax.Array) -> list[jax.Array]:
        values = list(flat)
        for i, x in zip(moving, xs, strict=True):
            values[i] = x
        return [out for out in call(*values) if is_differentiable(typeof(out))]

    points = [flat[i] for i in moving]
    precision = max(float(jnp.finfo(x.dtype).eps) for x in points)
    tolerances = _Tolerances(atol, rtol, eps, precision)
    names = [f"args{paths[i]}" for i in moving]
    _check(of_moving, points, names, order, tuple(modes), tolerances, np.random.default_rng(seed), "")


def check_rule(rule: Primitive | Callable[..., PyTree], *args: PyTree, order: int = 2, modes: Sequence[str] = ("fwd", "rev"),
               atol: float | None = None, rtol: float | None = None, eps: float | None = None, seed: int = 0, **params: object) -> None:
    r"""Check the rule of a primitive, or of a function decorated with :func:`dualrev.rule`, at a point.

    The push :math:`J t` is compared with differences, and the pull with it:
    :math:`\langle c, J t\rangle = \langle J^{\mathsf T} c, t\rangle`.

    Args:
      rule: a jax primitive that has a row in the table, or a function.
      args: its operands: arrays of floats or complex numbers; integers stay as they are.
      order, modes, atol, rtol, eps, seed: as in :func:`check_grads`.
      params: parameters of the primitive, or keyword arguments of the function.

    Raises:
      DerivativeError: the rule is wrong; the message names it, the mode, the input and its element.
      MissingRuleError: the primitive has no row.

    >>> from jax import lax
    >>> from dualrev.testing import check_rule
    >>> check_rule(lax.integer_pow_p, 0.5, order=1, y=3) is None
    True

    Source: [GriewankWalther2008, ch. 3].
    """
    name = str(rule) if isinstance(rule, Primitive) else getattr(rule, "__name__", repr(rule))

    def call(*xs: PyTree) -> PyTree:
        return rule.bind(*xs, **params) if isinstance(rule, Primitive) else rule(*xs, **params)

    try:
        check_grads(call, args, order, modes, atol=atol, rtol=rtol, eps=eps, seed=seed)
    except DerivativeError as error:
        raise DerivativeError(f"the rule for {name} is wrong: {error}") from None


class _Tolerances:
    def __init__(self, atol: float | None, rtol: float | None, eps: float | None, precision: float):
        self.step = precision ** (1 / 3) if eps is None else eps
        loss = precision ** (2 / 3)  # truncation and rounding of central differences at that step
        self.atol = 50 * loss if atol is None else atol
        self.rtol = 50 * loss if rtol is None else rtol
        self.exact = 1e3 * precision  # of identities that hold up to rounding

    def agree(self, x: npt.ArrayLike, y: npt.ArrayLike) -> bool:
        return bool(np.allclose(x, y, atol=self.atol, rtol=self.rtol, equal_nan=True))


def _differences(fun: FlatFunction, points: Sequence[jax.Array], ts: Sequence[jax.Array], step: float) -> list[np.ndarray]:
    ahead = fun(*[x + jnp.asarray(step, x.dtype) * t for x, t in zip(points, ts, strict=True)])
    behind = fun(*[x - jnp.asarray(step, x.dtype) * t for x, t in zip(points, ts, strict=True)])
    return [(wide(a) - wide(b)) / (2 * step) for a, b in zip(ahead, behind, strict=True)]


def _check(fun: FlatFunction, points: Sequence[jax.Array], names: Sequence[str], order: int, modes: tuple[str, ...], tol: _Tolerances,
           rng: np.random.Generator, history: str) -> None:
    ts = [normal(rng, x) for x in points]
    expected = _differences(fun, points, ts, tol.step)
    cts = [normal(rng, out) for out in fun(*points)]
    if "fwd" in modes:
        pushed = push(fun, points, ts)
        if not all(tol.agree(p, e) for p, e in zip(pushed, expected, strict=True)):
            raise DerivativeError(_find_element("fwd", fun, points, names, cts, tol, history))
    if "rev" in modes:
        pulled = pull(fun, points, cts)
        scale = max(1.0, sum(float(np.sum(np.abs(wide(c)) * np.abs(e))) for c, e in zip(cts, expected, strict=True)))
        if not abs(pair(cts, expected) - pair(pulled, ts)) <= scale * (tol.atol + tol.rtol):
            raise DerivativeError(_find_element("rev", fun, points, names, cts, tol, history))
        if "fwd" in modes and not abs(pair(cts, pushed) - pair(pulled, ts)) <= scale * max(tol.exact, tol.atol * 1e-3):
            raise DerivativeError(f"{history}the modes disagree: <c, J t> = {pair(cts, pushed)!r}, but <Jᵀ c, t> = "
                                  f"{pair(pulled, ts)!r}")
    if order > 1:
        if "fwd" in modes:
            _check(lambda *xs: push(fun, xs, ts), points, names, order - 1, modes, tol, rng, history + "fwd, then ")
        if "rev" in modes:
            _check(lambda *xs: pull(fun, xs, cts), points, names, order - 1, modes, tol, rng, history + "rev, then ")


def _find_element(mode: str, fun: FlatFunction, points: Sequence[jax.Array], names: Sequence[str], cts: Sequence[jax.Array],
                  tol: _Tolerances, history: str) -> str:
    """The message about the input element whose derivative is furthest off."""
    pulled = pull(fun, points, cts) if mode == "rev" else None
    worst: tuple[float, str] = (-1.0, "no single element is to blame")
    searched = 0
    for i, (x, name) in enumerate(zip(points, names, strict=True)):
        for index in np.ndindex(x.shape):
            searched += 1
            if searched > ELEMENTS_SEARCHED:
                break
            unit = [jnp.zeros_like(y) for y in points]
            unit[i] = unit[i].at[index].set(1)
            expected: Sequence[np.ndarray] = _differences(fun, points, unit, tol.step)
            if mode == "fwd":
                got: Sequence[np.ndarray] = [wide(p) for p in push(fun, points, unit)]
            else:
                assert pulled is not None  # computed above for this mode
                expected, got = [np.asarray(pair(cts, expected))], [np.real(wide(pulled[i]))[index]]
            for j, (e, g) in enumerate(zip(expected, got, strict=True)):
                error = np.nan_to_num(np.abs(np.asarray(g - e)), nan=np.inf)
                if error.size and float(error.max()) > worst[0]:
                    at = np.unravel_index(int(error.argmax()), error.shape)
                    where = f", output {j}{list(map(int, at))}" if mode == "fwd" else ""
                    worst = (float(error.max()), f"{name}{list(index)}{where}: expected {np.asarray(e)[at]!s} by finite differences, "
                                                 f"got {np.asarray(g)[at]!s}")
    how = {"fwd": "forward mode (push)", "rev": "reverse mode (pull)"}[mode]
    depth = history.count("then") + 1
    return f"{how}, order {depth}{f' ({history}{mode})' if history else ''}, input {worst[1]}"
