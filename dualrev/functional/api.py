"""The functional face: ``jvp``, ``vjp``, ``linearize``, ``linear_transpose``.

The signatures are jax's, plus ``engine=``: ``"forward"`` pushes dual numbers, ``"reverse"`` writes a tape.  The engines are
interchangeable, and each of these functions composes with ``jax.jit``, ``jax.vmap`` and with itself.

Complex numbers follow jax: cotangents are transposed, not conjugated, under the pairing ``Re(Σ uᵢ·yᵢ)``; ``grad`` of a real
function of ``z = x + iy`` is ``∂f/∂x − i ∂f/∂y``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, Unpack, overload

import jax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_array_like, typeof
from dualrev._jax.sharding import AxisName
from dualrev._jax.trees import PyTree
from dualrev.engines import forward, reverse, sweeps
from dualrev.functional import checks
from dualrev.functional.checks import Flags
from dualrev.functional.flat_calls import Engine, FlatCall, linearize_flat, prepare
from dualrev.functional.linearized import Linearized
from dualrev.functional.passthrough import Through
from dualrev.functional.results import LinearTranspose, Pullback, Structure, push_flat
from dualrev.functional.watching import is_watched
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap
from dualrev.linear.residuals import Origins
from dualrev.options.settings import Options, Request, using
from dualrev.programs.functions import as_arrays
from dualrev.table.rows import Unknown, aval_of

#: What a user's function returns, and what it returns beside that.
Out = TypeVar("Out")
Aux = TypeVar("Aux")


@overload
def jvp(fun: Callable[..., Out], primals: Sequence[PyTree], tangents: Sequence[PyTree], has_aux: Literal[False] = False, *,
        engine: Engine = "forward", **options: Unpack[Options]) -> tuple[Out, Out]: ...


@overload
def jvp(fun: Callable[..., tuple[Out, Aux]], primals: Sequence[PyTree], tangents: Sequence[PyTree], has_aux: Literal[True], *,
        engine: Engine = "forward", **options: Unpack[Options]) -> tuple[Out, Out, Aux]: ...


@overload
def jvp(fun: Callable[..., PyTree], primals: Sequence[PyTree], tangents: Sequence[PyTree], has_aux: bool, *,
        engine: Engine = "forward", **options: Unpack[Options]) -> tuple[PyTree, ...]: ...


@is_watched("jvp")
def jvp(fun: Callable[..., PyTree], primals: Sequence[PyTree], tangents: Sequence[PyTree], has_aux: bool = False, *,
        engine: Engine = "forward", **options: Unpack[Options]) -> tuple[PyTree, ...]:
    r"""Push tangents through a function: the Jacobian-vector product.

    :math:`(f(x),\; \partial f(x)\, v)`, computed with dual numbers :math:`x + \varepsilon v` in one evaluation.

    Args:
      fun: function of arrays, or of pytrees of them.
      primals: tuple or list of the arguments :math:`x`.
      tangents: the direction :math:`v`, with the structure, shapes and dtypes of ``primals`` (float0 for integers).
      has_aux: whether ``fun`` returns ``(out, aux)``; ``aux`` is not differentiated.
      engine: ``"forward"`` stores nothing; ``"reverse"`` writes a tape and pushes through it.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      ``(out, tangent of out)``, and ``aux`` where ``has_aux``.

    Raises:
      TypeError, ValueError: tangents that do not fit the primals; the message names the leaf.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> out, tangent = dr.jvp(lambda x: x ** 2, (3.0,), (1.0,))
    >>> float(out), float(tangent)
    (9.0, 6.0)

    Source: [Wengert1964]; [GriewankWalther2008, ch. 3].
    """
    checks.check_callable(fun)
    checks.check_engine(engine, ("forward", "reverse"), "jvp")
    request = Request.of("jvp", options)
    with errors.calling("jvp"), using(request.settings):
        through = Through(tuple(primals)) if request.keeps_all else None
        flat, flat_tangents, in_tree = checks.check_jvp_arguments(primals if through is None else through.reduced, tangents)
        call = FlatCall(fun, in_tree, has_aux, through)
        flat = as_arrays(flat)
        if engine == "forward":
            given = [zeros.drop_float0(t) for t in as_arrays(flat_tangents)]
            results, moved = forward.push_through(call, flat, given)
            outs_t = [zeros.fit(t, typeof(x)) for x, t in zip(results[: call.n_out], moved, strict=False)]
        else:
            results, linear_map, structure = linearize_flat(call, flat, engine, request)
            outs_t = push_flat(linear_map, structure, flat_tangents)
        out, aux = call.finish(results)
        out_tangent = tree_unflatten(call.out_tree, outs_t)
        return (out, out_tangent, aux) if has_aux else (out, out_tangent)


@overload
def vjp(fun: Callable[..., Out], *primals: PyTree, has_aux: Literal[False] = False, reduce_axes: Sequence[AxisName] = (),
        saveable_args: Flags = True, in_nzs: Flags | None = None, engine: Engine = "reverse",
        **options: Unpack[Options]) -> tuple[Out, Pullback]: ...


@overload
def vjp(fun: Callable[..., tuple[Out, Aux]], *primals: PyTree, has_aux: Literal[True], reduce_axes: Sequence[AxisName] = (),
        saveable_args: Flags = True, in_nzs: Flags | None = None, engine: Engine = "reverse",
        **options: Unpack[Options]) -> tuple[Out, Pullback, Aux]: ...


@overload
def vjp(fun: Callable[..., PyTree], *primals: PyTree, has_aux: bool, reduce_axes: Sequence[AxisName] = (),
        saveable_args: Flags = True, in_nzs: Flags | None = None, engine: Engine = "reverse",
        **options: Unpack[Options]) -> tuple[PyTree, ...]: ...


def vjp(fun: Callable[..., PyTree], *primals: PyTree, has_aux: bool = False, reduce_axes: Sequence[AxisName] = (),
        saveable_args: Flags = True, in_nzs: Flags | None = None, engine: Engine = "reverse",
        **options: Unpack[Options]) -> tuple[PyTree, ...]:
    r"""Evaluate a function and return the function that pulls cotangents back: the vector-Jacobian product.

    :math:`u \mapsto \partial f(x)^{\mathsf T} u`.

    Args:
      fun: function of arrays, or of pytrees of them.
      primals: the arguments :math:`x`.
      has_aux: whether ``fun`` returns ``(out, aux)``.
      reduce_axes: accepted for compatibility; must be empty.
      saveable_args: accepted for compatibility with jax 0.12; must be True, as a pull that waits for its arguments is not offered.
      in_nzs: a bool, or a tree of bools that is a prefix of the primals: where False, an input is held constant (its cotangent is 0).
      engine: ``"reverse"`` writes a tape, one pull costs a small multiple of ``fun``; ``"forward"`` pushes a basis of the
        inputs, keeps the Jacobian, and each pull is a contraction with it.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      ``(out, pull)``, and ``aux`` where ``has_aux``.  ``pull`` takes a cotangent with the structure of ``out`` and returns a tuple
      with one for each primal (float0 for integers).  It is a pytree and may leave ``jit``.

    Raises:
      TypeError, ValueError: primals that are not arrays; cotangents that do not fit.

    >>> import dualrev as dr
    >>> out, pull = dr.vjp(lambda x, y: x * y, 2.0, 5.0)
    >>> [float(ct) for ct in pull(1.0)]
    [5.0, 2.0]

    Source: [Linnainmaa1970]; [GriewankWalther2008, ch. 3].
    """
    checks.check_callable(fun)
    checks.check_engine(engine, ("forward", "reverse"), "vjp")
    if reduce_axes:
        raise NotImplementedError("reduce_axes argument to vjp is deprecated")
    if not all(x is True for x in jax.tree_util.tree_leaves(saveable_args)):
        raise NotImplementedError(f"vjp: saveable_args must be True for every argument; got {saveable_args!r}. To keep an argument "
                                  "from being stored, differentiate dr.checkpoint of the function.")
    request = Request.of("vjp", options)
    with errors.calling("vjp"), using(request.settings):
        call, flat = prepare(fun, primals, has_aux, request, "primals")
        results, linear_map, structure = linearize_flat(call, flat, engine, request, None, in_nzs)
        out, aux = call.finish(results)
        pull = Pullback(linear_map, structure, Origins(flat, results[: call.n_out], structure))
        return (out, pull, aux) if has_aux else (out, pull)


@overload
def linearize(fun: Callable[..., Out], *primals: PyTree, has_aux: Literal[False] = False, in_nzs: Flags | None = None,
              engine: Engine = "reverse", **options: Unpack[Options]) -> tuple[Out, Linearized]: ...


@overload
def linearize(fun: Callable[..., tuple[Out, Aux]], *primals: PyTree, has_aux: Literal[True], in_nzs: Flags | None = None,
              engine: Engine = "reverse", **options: Unpack[Options]) -> tuple[Out, Linearized, Aux]: ...


@overload
def linearize(fun: Callable[..., PyTree], *primals: PyTree, has_aux: bool, in_nzs: Flags | None = None,
              engine: Engine = "reverse", **options: Unpack[Options]) -> tuple[PyTree, ...]: ...


def linearize(fun: Callable[..., PyTree], *primals: PyTree, has_aux: bool = False, in_nzs: Flags | None = None,
              engine: Engine = "reverse", **options: Unpack[Options]) -> tuple[PyTree, ...]:
    r"""Evaluate a function and return its derivative there as a linear map.

    :math:`(f(x),\; v \mapsto \partial f(x)\, v)`; the map can be transposed, and holds what it needs: nothing is evaluated again.

    Args:
      fun: function of arrays, or of pytrees of them.
      primals: the arguments :math:`x`.
      has_aux: whether ``fun`` returns ``(out, aux)``.
      in_nzs: a bool, or a tree of bools that is a prefix of the primals: where False, an input is held constant.
      engine: ``"reverse"`` keeps a tape; ``"forward"`` keeps the Jacobian, found by pushes of a basis.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      ``(out, J)``, and ``aux`` where ``has_aux``: a :class:`~dualrev.functional.linearized.Linearized` with ``J(*tangents)``,
      ``J @ v``, ``J.T @ u``, ``J @ K``, ``2 * J + K``, ``J.dense()``, ``J.shape``,
      ``J.residual_bytes``, ``J.residuals()``.  It is a pytree and may leave ``jit``.

    Raises:
      TypeError, ValueError: primals that are not arrays; later, tangents that do not fit.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> out, J = dr.linearize(lambda x: x[:2] * x[1], jnp.array([2.0, 3.0, 4.0]))
    >>> J.shape, (J.T @ jnp.ones(2)).tolist()
    ((2, 3), [3.0, 8.0, 0.0])

    Source: [RadulEtAl2023].
    """
    checks.check_callable(fun)
    checks.check_engine(engine, ("forward", "reverse"), "linearize")
    request = Request.of("linearize", options)
    with errors.calling("linearize"), using(request.settings):
        call, flat = prepare(fun, primals, has_aux, request, "primals")
        results, linear_map, structure = linearize_flat(call, flat, engine, request, None, in_nzs)
        out, aux = call.finish(results)
        J = Linearized(linear_map, structure, Origins(flat, results[: call.n_out], structure))
        return (out, J, aux) if has_aux else (out, J)


def linear_transpose(fun: Callable[..., PyTree], *primals: PyTree, reduce_axes: Sequence[AxisName] = (),
                     engine: Engine = "reverse") -> LinearTranspose:
    r"""The transpose of a function that is linear: :math:`f(x) = A x` gives :math:`u \mapsto A^{\mathsf T} u`.

    Args:
      fun: a linear function; it is traced with abstract values, never evaluated.
      primals: arguments, or :class:`jax.ShapeDtypeStruct` of them.
      reduce_axes: accepted for compatibility; must be empty.
      engine: ``"reverse"`` transposes the tape; ``"forward"`` pushes a basis of the inputs and transposes the matrix.

    Returns:
      A function from a cotangent of the output to a tuple with one for each primal.

    Raises:
      NonLinearError: ``fun`` reads the value of something that it should be linear in.
      TypeError: dtypes are mixed, or the cotangent does not fit.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> [ct.tolist() for ct in dr.linear_transpose(lambda x: 3.0 * x[::-1], jnp.zeros(2))(jnp.array([1.0, 2.0]))]
    [[6.0, 3.0]]

    Source: [RadulEtAl2023].
    """
    checks.check_callable(fun)
    checks.check_engine(engine, ("forward", "reverse"), "linear_transpose")
    if reduce_axes:
        raise NotImplementedError("reduce_axes argument to linear_transpose is deprecated")
    with errors.calling("linear_transpose"):
        flat, in_tree = tree_flatten(primals)
        avals = [_abstract(x) for x in flat]
        call = FlatCall(fun, in_tree, False)
        outs, tape = reverse.linearize(call, [Unknown(a) for a in avals], [True] * len(avals), is_linear=True)
        out_avals = [aval_of(x) for x in outs]
        checks.check_linear_dtypes(avals, out_avals)
        out_tree = call.out_tree

        if engine == "forward":
            jax.eval_shape(tape.pull, *[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in out_avals])  # raises if it is not linear
    linear_map: LinearMap = sweeps.dense_of(tape, avals, out_avals) if engine == "forward" else tape
    return LinearTranspose(linear_map, Structure(checks.name_of(fun), in_tree, avals, [True] * len(avals), out_tree, out_avals))


def _abstract(x: object) -> ShapedArray:
    if is_array_like(x):
        return typeof(x)
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return ShapedArray(tuple(x.shape), x.dtype, weak_type=getattr(x, "weak_type", False))
    raise TypeError(f"Argument '{x}' of type {type(x)} is not a valid JAX type, and has no shape and dtype either")
