"""Functions of jax that are programs, and whose derivative is not that of their program.

Such a program finds its result by a search, or sets entries that vanish to a constant, so that the derivative of the program is zero or
wrong.  A ``jit`` call that runs one of them, as jax's own file defines it
(:func:`dualrev._jax.library_functions.library_function`), is differentiated as another program with the same values.  Under
``jax.disable_jit`` there is no such call, and the derivative is that of the program as it is written.

``jax.scipy.linalg.sqrtm``
    ``X² = A`` gives ``X dX + dX X = dA``, a Sylvester equation [Higham2008, eq. 6.1].  It has one solution wherever no two eigenvalues
    of ``X`` add up to zero: ``A`` may be a multiple of the identity, or defective.
``jax.scipy.linalg.eigh_tridiagonal``
    The derivatives of eigenvalues and eigenvectors are those of the dense matrix:
    ``dwᵢ = Σⱼ |vⱼᵢ|² ddⱼ + 2 Re Σⱼ conj(vⱼᵢ) deⱼ vⱼ₊₁,ᵢ``.  This takes the eigenvectors of the dense matrix, O(n³) operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax.avals import common_dtype
from dualrev._jax.calls import jit_p
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, is_literal, jaxpr_as_fun, stage
from dualrev._jax.library_functions import LIBRARY_FUNCTIONS, library_function
from dualrev._jax.new_primitives import matrix_primitive
from dualrev._jax.primitives import Params, Primitive
from dualrev.calls.derived_programs import cached
from dualrev.linear.zeros import Tangent
from dualrev.rules.linalg.matrices import H, T, cast, diagonal, mm, real, triangular
from dualrev.table.adjoints import LinearRow
from dualrev.table.choosing import ByActivityRow
from dualrev.table.pushforward import PushforwardRow, pushforward
from dualrev.table.rows import register, rows


def program_of(params: Params) -> ClosedJaxpr:
    """The program whose derivative a ``jit`` call has."""
    name = library_function(params) if params["name"] in LIBRARY_FUNCTIONS else None
    jaxpr: ClosedJaxpr = params["jaxpr"]
    return jaxpr if name is None else _in_place_of(name, jaxpr)


def _in_place_of(name: str, jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    replaced = _FUNCTIONS[name]

    def make() -> ClosedJaxpr:
        # A program that is cached for as long as the jaxpr lives must not hold it: its equations are copies.
        return stage(lambda *args: replaced(jaxpr, args), jaxpr.in_avals)

    return cached(jaxpr, "in place", make)


# -------------------------------------------------------------------------------------------------------- batched programs


def _works_entry_by_entry(primitive: Primitive) -> bool:
    row = rows.get(primitive)
    return primitive is lax.convert_element_type_p or (row is not None and (row.is_diagonal or row.cost == "entrywise"))


def batch_axes(jaxpr: ClosedJaxpr, operand: int, until: str, core: Callable[[JaxprEqn], set[int]],
               batches: int) -> list[int] | None:
    """The batch axes of an operand of a program under ``vmap``, in order; their positions depend on jax.

    The operand is followed, through conversions, transposes and entrywise operations, to the first operation ``until``, whose
    core axes are ``core(eqn)``.  None if the operand does not reach it.
    """
    found: list[list[int]] = []

    def follow(body: Jaxpr, axes: dict[Atom, tuple[int, ...]]) -> list[tuple[int, ...] | None]:
        for eqn in body.eqns:
            if found:
                break
            source = next((axes[v] for v in eqn.invars if not is_literal(v) and v in axes), None)
            if source is None:
                continue
            name = eqn.primitive.name
            if name.startswith(until):
                along = core(eqn)
                found.append([axis for position, axis in enumerate(source) if position not in along])
            elif name == "transpose":
                axes[eqn.outvars[0]] = tuple([source[k] for k in eqn.params["permutation"]])
            elif eqn.primitive is jit_p:
                inner = eqn.params["jaxpr"].jaxpr
                pairs = zip(inner.invars, eqn.invars, strict=True)
                given = {v: axes[atom] for v, atom in pairs if not is_literal(atom) and atom in axes}
                axes.update({v: kept for v, kept in zip(eqn.outvars, follow(inner, given), strict=True) if kept is not None})
            elif len(source) == eqn.outvars[0].aval.ndim and _works_entry_by_entry(eqn.primitive):  # type: ignore[attr-defined]
                axes[eqn.outvars[0]] = source
        return [axes.get(v) for v in body.outvars]

    operand_var = jaxpr.jaxpr.invars[operand]
    follow(jaxpr.jaxpr, {operand_var: tuple(range(jaxpr.in_avals[operand].ndim))})
    return found[0] if found and len(found[0]) == batches else None


def batched_in_front(jaxpr: ClosedJaxpr, x: jax.Array, operand: int, until: str, core: Callable[[JaxprEqn], set[int]],
                     ndim: int) -> jax.Array:
    """An operand with its batches in front."""
    batches = x.ndim - ndim
    if batches == 0:
        return x
    axes = batch_axes(jaxpr, operand, until, core, batches)
    if axes is None:
        raise errors.no_derivative(jit_p, f"The batch axes of operand {operand} of this function cannot be determined.",
                                   "Call jax.vmap outside the derivative, or give it in_axes=0.")
    return lax.transpose(x, (*axes, *[i for i in range(x.ndim) if i not in axes]))


# ------------------------------------------------------------------------------------------------------------- square root


def _solve_sylvester(X: jax.Array, C: jax.Array) -> jax.Array:
    """``Y`` with ``X Y + Y X = C``: with ``X = Z R Zᴴ``, column ``j`` of ``Zᴴ Y Z`` solves a triangular system with ``R + rⱼⱼ``."""
    R, Z = lax.linalg.schur_p.bind(X, compute_schur_vectors=True, sort_eig_vals=False, select_callable=None)
    M, r, last = mm(H(Z), C, Z), diagonal(R), X.ndim - 1
    identity = lax.broadcast(np.eye(X.shape[-1], dtype=X.dtype), X.shape[:-2])

    def column(Y: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
        def of(x: jax.Array) -> jax.Array:
            return lax.dynamic_slice_in_dim(x, j, 1, x.ndim - 1)

        shifted = lax.add(R, lax.mul(identity, lax.broadcast_in_dim(of(r), X.shape, (*range(last - 1), last))))
        # Columns of Y that are not computed yet are zero.
        y = triangular(shifted, lax.sub(of(M), mm(Y, of(R))), lower=False)
        return lax.dynamic_update_slice_in_dim(Y, y, j, last), None

    Y, _ = lax.scan(column, lax.full_like(C, 0), np.arange(X.shape[-1]))  # type: ignore[arg-type]
    return mm(Z, Y, H(Z))


#: ``Y`` with ``X Y + Y X = C``, of complex matrices.
sylvester_p = matrix_primitive("sylvester", _solve_sylvester)


def _sylvester_push(ts: tuple[jax.Array, Tangent], X: jax.Array, _: object, *, out: jax.Array) -> jax.Array:
    """``X dY + dY X = dC - dX Y - Y dX``."""
    t_X, t_C = ts
    rhs = lax.neg(lax.add(mm(t_X, out), mm(out, t_X)))
    y_t: jax.Array = sylvester_p.bind(X, rhs if t_C is None else lax.add(t_C, rhs))
    return y_t


# Linear in the right-hand side; its adjoint is the equation with the transpose of the matrix.
register(ByActivityRow(LinearRow(sylvester_p, (None, lambda ct, X, _: sylvester_p.bind(T(X), ct))),
                       PushforwardRow(sylvester_p, _sylvester_push, linear_in=(1,))))

#: ``X``, which is known to solve ``X² = A``.
square_root_p = matrix_primitive("square_root", lambda A, X: X)
pushforward(square_root_p, lambda t, _A, _X, *, out: sylvester_p.bind(out, t))


def _square_root(jaxpr: ClosedJaxpr, args: Sequence[jax.Array]) -> list[jax.Array]:
    (A,) = args
    (X,) = jaxpr_as_fun(jaxpr)(lax.stop_gradient(A))

    def matrices(eqn: JaxprEqn) -> set[int]:
        ndim = len(eqn.invars[0].aval.shape)  # type: ignore[attr-defined]
        return {ndim - 2, ndim - 1}

    A = batched_in_front(jaxpr, A, 0, "schur", matrices, 2)
    return [square_root_p.bind(cast(A, X.dtype), X)]


# ---------------------------------------------------------------------------------------------------- tridiagonal matrices


def _with_derivative_of(model: jax.Array, value: jax.Array) -> jax.Array:
    """``value``, with the derivative of ``model``."""
    return lax.add(value, cast(lax.sub(model, lax.stop_gradient(model)), value.dtype))


def _dense(d: jax.Array, e: jax.Array) -> jax.Array:
    """The Hermitian matrix with the diagonal ``d``, ``e`` to its right and ``conj(e)`` below."""
    n = d.shape[-1]
    e = lax.pad(e, np.asarray(0, e.dtype), [(0, 0, 0)] * (e.ndim - 1) + [(0, 1, 0)])
    upper, k = np.eye(n, k=1, dtype=e.dtype), d.ndim - 1

    def rows(v: jax.Array) -> jax.Array:
        return lax.broadcast_in_dim(v, (*v.shape, n), tuple(range(v.ndim)))

    def over(mask: np.ndarray) -> jax.Array:
        return lax.broadcast(mask, d.shape[:k])

    above = lax.mul(rows(e), over(upper))
    return lax.add(lax.mul(rows(cast(d, e.dtype)), over(np.eye(n, dtype=e.dtype))), lax.add(above, H(above)))


def _window(w: jax.Array, found: jax.Array) -> jax.Array:
    """The position in ``w`` at which ``found`` starts: the program selects eigenvalues, but does not return their position."""
    n, k, last = w.shape[-1], found.shape[-1], w.ndim - 1
    misfits = [lax.reduce_max(lax.abs(lax.sub(lax.slice_in_dim(w, i, i + k, axis=last), found)), (last,)) for i in range(n - k + 1)]
    return lax.argmin(lax.concatenate([lax.expand_dims(x, (last,)) for x in misfits], last), last, np.int32)


def _part(x: jax.Array, start: jax.Array, k: int) -> jax.Array:
    """``k`` columns from ``start`` on, which differs between batches."""
    first = lax.broadcast_in_dim(start, (*start.shape, k), tuple(range(start.ndim)))
    return jnp.take_along_axis(x, lax.add(first, lax.broadcasted_iota(np.int32, first.shape, first.ndim - 1)), x.ndim - 1)


def _eigh_tridiagonal(jaxpr: ClosedJaxpr, args: Sequence[jax.Array]) -> list[jax.Array]:
    found = jaxpr_as_fun(jaxpr)(*[lax.stop_gradient(x) for x in args])
    w_found = found[0]

    def reduced(eqn: JaxprEqn) -> set[int]:
        return {int(axis) for axis in eqn.params["axes"]}

    d, e = (batched_in_front(jaxpr, x, i, "reduce_max", reduced, 1) for i, x in enumerate(args[:2]))
    batches = w_found.shape[:-1]
    for x in (d, e):
        if x.ndim > 1 and x.shape[:-1] != batches:
            raise errors.no_derivative(jit_p, "The batches of the two operands of eigh_tridiagonal are not the same.",
                                       "Call jax.vmap outside the derivative, or broadcast both operands first.")
    d, e = (x if x.ndim > 1 else lax.broadcast(x, batches) for x in (d, e))
    dtype = common_dtype(d.dtype, e.dtype)
    V, w = lax.linalg.eigh(_dense(cast(real(d), dtype), cast(e, dtype)), symmetrize_input=False)
    k = w_found.shape[-1]
    if k < w.shape[-1]:
        start = _window(lax.stop_gradient(w), w_found)
        w, V = _part(w, start, k), _part(V, lax.broadcast_in_dim(start, V.shape[:-1], tuple(range(len(batches)))), k)
    results = [_with_derivative_of(w, w_found)]
    for V_found in found[1:]:
        # Eigenvectors up to the sign, or phase, that the program found.
        along = lax.reduce_sum(lax.mul(lax.conj(V) if V.dtype.kind == "c" else V, V_found), (V.ndim - 2,))
        phase = lax.stop_gradient(lax.sign(along))
        model = lax.mul(V, lax.broadcast_in_dim(phase, V.shape, (*range(len(batches)), V.ndim - 1)))
        results.append(_with_derivative_of(model, V_found))
    return results


#: Functions of jax -> ``(program, operands)`` to the results, as a program that has the right derivative.
_FUNCTIONS: dict[str, Callable[[ClosedJaxpr, Sequence[jax.Array]], list[jax.Array]]]
_FUNCTIONS = {"_sqrtm": _square_root, "eigh_tridiagonal": _eigh_tridiagonal}
