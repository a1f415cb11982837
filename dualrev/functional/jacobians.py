"""The functional face: Jacobians and Hessians, with jax's signatures plus ``engine=``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack, overload

import jax
import jax.numpy as jnp
from jax.errors import InconclusiveDimensionOperation
from jax.tree_util import tree_unflatten

from dualrev import errors
from dualrev._jax.avals import convert_to, is_differentiable, tangent_aval, typeof
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.engines import sweeps
from dualrev.functional import checks, eliminated, flat_calls, waists, ways
from dualrev.functional.api import Aux
from dualrev.functional.checks import Argnums
from dualrev.functional.choices import Planned, as_asked, with_plan
from dualrev.functional.eliminated import JacobianEngine, Order, OrderKey
from dualrev.functional.flat_calls import Engine, HessianEngine
from dualrev.functional.gradients import P, Partial, wraps
from dualrev.functional.results import Structure
from dualrev.functional.sparse_way import SparseWay
from dualrev.linear import zeros
from dualrev.linear.dense import DenseMap
from dualrev.linear.maps import LinearMap
from dualrev.options.settings import Options, Request, using
from dualrev.sparse import derivatives, requests
from dualrev.sparse.formats import Format
from dualrev.sparse.plans import Plan


def _jacobian_tree(blocks: Sequence[Sequence[jax.Array]], out_tree: PyTreeDef, in_tree: PyTreeDef, partial: Partial) -> PyTree:
    """A tree of outputs of trees of inputs."""
    return tree_unflatten(out_tree, [partial.unwrap(tree_unflatten(in_tree, row)) for row in blocks])


def _jacobian(name: str, fun: Callable[P, PyTree], argnums: Argnums, has_aux: bool, holomorphic: bool, allow_int: bool,
              engine: str | None, direction: str, chunk_size: int | None, options: Options,
              asked: str | None = None, order: OrderKey = "markowitz") -> Callable[P, PyTree]:
    with errors.calling(asked or name):
        checks.check_callable(fun)
    positions = checks.normalize_argnums(argnums)
    checks.check_chunk_size(name, chunk_size)
    request = Request.of(asked or name, options, isinstance(positions, int))

    @wraps(fun, argnums, "Jacobian")
    def jacobian_f(*args: P.args, **kwargs: P.kwargs) -> PyTree:
        with errors.calling(asked or name), using(request.settings):
            partial = Partial(name, fun, positions, args, kwargs)
            call, flat = partial.flat_call(has_aux, request)
            for x in flat:
                if direction in ("push", "waist"):
                    checks.check_forward_input_dtype(name, False if direction == "waist" else holomorphic, x)
                else:
                    checks.check_input_dtype(name, holomorphic, allow_int, x)
            if direction == "waist":
                results, blocks = waists.blocks_of(call, flat, request, chunk_size)
                outs = results[: call.n_out]
            elif direction == "eliminate":
                results, blocks, _ = eliminated.blocks_of(call, flat, request, order)
                outs = results[: call.n_out]
                for x in outs:
                    checks.check_output_dtype(name, holomorphic, x)
            elif direction == "push" and engine == "forward":
                results, blocks = sweeps.push_columns(call, flat, range(len(flat)), lambda: call.n_out, chunk_size)
                outs = results[: call.n_out]
            else:
                results, linear_map, s = flat_calls.linearize_flat(call, flat, "forward" if engine == "forward" else "reverse",
                                                                   request, chunk_size)
                outs = results[: call.n_out]
                push_is_cheaper = _has_fewer_inputs(s.shape) and all(_is_real(x) for x in flat)
                if direction == "push" or (direction == "auto" and push_is_cheaper):
                    blocks = _push_blocks(linear_map, s, chunk_size)
                else:
                    for x in outs:
                        checks.check_output_dtype(name, holomorphic, x)
                    blocks = _pull_blocks(linear_map, s, chunk_size)
            for x in outs:
                if direction == "push":
                    checks.check_forward_output_dtype(name, holomorphic, x)
                elif direction == "waist":
                    checks.check_output_dtype(name, False, x)
            _, aux = call.finish(results)
            jacobian = _jacobian_tree(blocks, call.out_tree, call.in_tree, partial)
            return (jacobian, aux) if has_aux else jacobian

    return jacobian_f


def _is_sparse(name: str, sparse: bool | Plan, pattern: Any, form: str | None, check: bool, allow_int: bool) -> bool:
    """Whether a sparse matrix is asked for; what only it has, and what it has not, are errors."""
    if sparse is False:
        if pattern is not None or form is not None or check:
            raise ValueError(f"{name}: pattern, format and check are for sparse=True")
        return False
    if allow_int:
        raise ValueError(f"{name}: sparse=True takes real or complex inputs; allow_int is for dense derivatives")
    return True


def _has_fewer_inputs(shape: tuple[int, int]) -> bool:
    """Whether there are at most as many inputs as outputs; False where symbolic sizes do not decide it."""
    m, n = shape
    try:
        return bool(n <= m)
    except InconclusiveDimensionOperation:
        return False


def _is_real(x: object) -> bool:
    return bool(jnp.issubdtype(typeof(x).dtype, jnp.floating))


def _push_blocks(linear_map: LinearMap, s: Structure, chunk_size: int | None) -> list[list[jax.Array]]:
    avals = [tangent_aval(a) for a in s.in_avals]
    outs = [a if is_differentiable(a) else None for a in s.out_avals]

    def push(*tangents: jax.Array) -> list[jax.Array]:
        moved = linear_map.push(*tangents)
        return [zeros.fit(t, a) for t, a in zip(moved, outs, strict=True) if a is not None]

    stacked = iter(sweeps.sweep(push, avals, chunk_size))
    n = sum(a.size for a in avals)
    full = [next(stacked) if a is not None else jnp.zeros((n, *aval.shape), aval.dtype)
            for a, aval in zip(outs, s.out_avals, strict=True)]
    return sweeps.columns(full, avals, s.out_avals)


def _pull_blocks(linear_map: LinearMap, s: Structure, chunk_size: int | None) -> list[list[jax.Array]]:
    moving = [a for a, moves in zip(s.ct_avals, s.active, strict=True) if moves]

    def pull(*cotangents: jax.Array) -> list[jax.Array]:
        return [zeros.fit(ct, a) for ct, a in zip(linear_map.pull(*cotangents), moving, strict=True)]

    out_avals = [tangent_aval(a) for a in s.out_avals]
    if isinstance(linear_map, DenseMap) and all(b is None for row in linear_map.imaginary for b in row):
        found = [[jnp.zeros((*o.shape, *i.shape), i.dtype) if a is None else convert_to(a, i)
                  for a, i in zip(row, moving, strict=True)] for row, o in zip(linear_map.real, out_avals, strict=True)]
    else:
        found = sweeps.rows(sweeps.sweep(pull, out_avals, chunk_size), moving, out_avals)
    blocks = []
    for row, out in zip(found, out_avals, strict=True):
        values = iter(row)  # an integer input has no influence: zeros of its own dtype, as in jax
        blocks.append([next(values) if moves else jnp.zeros((*out.shape, *a.shape), a.dtype)
                       for a, moves in zip(s.in_avals, s.active, strict=True)])
    return blocks


@overload
def jacfwd(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: Literal[False] = False, holomorphic: bool = False, *,
           engine: Engine = "forward", chunk_size: int | None = None, **options: Unpack[Options]) -> Callable[P, PyTree]: ...


@overload
def jacfwd(fun: Callable[P, tuple[PyTree, Aux]], argnums: Argnums = 0, *, has_aux: Literal[True], holomorphic: bool = False,
           engine: Engine = "forward", chunk_size: int | None = None,
           **options: Unpack[Options]) -> Callable[P, tuple[PyTree, Aux]]: ...


@overload
def jacfwd(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False, *,
           engine: Engine = "forward", chunk_size: int | None = None, **options: Unpack[Options]) -> Callable[..., PyTree]: ...


def jacfwd(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False, *,
           engine: Engine = "forward", chunk_size: int | None = None, **options: Unpack[Options]) -> Callable[P, PyTree]:
    r"""The Jacobian of a function, column by column: :math:`\partial f_i / \partial x_j` by one push for each input element.

    Args:
      fun: function of real arrays (complex ones where ``holomorphic``) or pytrees of them.
      argnums, has_aux, holomorphic: as in :func:`value_and_grad`.
      engine: ``"forward"`` pushes dual numbers; ``"reverse"`` writes a tape once and pushes through it.
      chunk_size: how many pushes to make at once, to bound memory; None for all.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      A function that returns the Jacobian: a tree of outputs of trees of inputs, with leaves of shape ``(*output, *input)``; and
      ``aux`` where ``has_aux``.

    Raises:
      TypeError: a dtype is not allowed.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.jacfwd(lambda x: x[:2] * x[2])(jnp.array([1.0, 2.0, 3.0])).tolist()
    [[3.0, 0.0, 1.0], [0.0, 3.0, 2.0]]

    Source: [GriewankWalther2008, ch. 3].
    """
    checks.check_engine(engine, ("forward", "reverse"), "jacfwd")
    return _jacobian("jacfwd", fun, argnums, has_aux, holomorphic, False, engine, "push", chunk_size, options)


@overload
def jacrev(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: Literal[False] = False, holomorphic: bool = False,
           allow_int: bool = False, *, engine: Engine = "reverse", chunk_size: int | None = None,
           **options: Unpack[Options]) -> Callable[P, PyTree]: ...


@overload
def jacrev(fun: Callable[P, tuple[PyTree, Aux]], argnums: Argnums = 0, *, has_aux: Literal[True], holomorphic: bool = False,
           allow_int: bool = False, engine: Engine = "reverse", chunk_size: int | None = None,
           **options: Unpack[Options]) -> Callable[P, tuple[PyTree, Aux]]: ...


@overload
def jacrev(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
           allow_int: bool = False, *, engine: Engine = "reverse", chunk_size: int | None = None,
           **options: Unpack[Options]) -> Callable[..., PyTree]: ...


def jacrev(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
           allow_int: bool = False, *, engine: Engine = "reverse", chunk_size: int | None = None,
           **options: Unpack[Options]) -> Callable[P, PyTree]:
    r"""The Jacobian of a function, row by row: :math:`\partial f_i / \partial x_j` by one pull for each output element.

    Args:
      fun: function of arrays or pytrees of them, with real outputs (complex ones where ``holomorphic``).
      argnums, has_aux, holomorphic, allow_int: as in :func:`value_and_grad`.
      engine: ``"reverse"`` writes a tape once and pulls through it; ``"forward"`` pushes a basis of the inputs.
      chunk_size: how many pulls to make at once, to bound memory; None for all.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      As :func:`jacfwd`.

    Raises:
      TypeError: a dtype is not allowed.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.jacrev(lambda x: x[:2] * x[2], chunk_size=1)(jnp.array([1.0, 2.0, 3.0])).tolist()
    [[3.0, 0.0, 1.0], [0.0, 3.0, 2.0]]

    Source: [GriewankWalther2008, ch. 3].
    """
    checks.check_engine(engine, ("forward", "reverse"), "jacrev")
    return _jacobian("jacrev", fun, argnums, has_aux, holomorphic, allow_int, engine, "pull", chunk_size, options)


@overload
def jacobian(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: Literal[False] = False, holomorphic: bool = False,
             allow_int: bool = False, *, engine: JacobianEngine = "auto",
             order: Order | None = None, chunk_size: int | None = None, sparse: bool | Plan = False,
             pattern: Any = None, format: Format | None = None, check: bool = False,
             **options: Unpack[Options]) -> Planned[P, PyTree]: ...


@overload
def jacobian(fun: Callable[P, tuple[PyTree, Aux]], argnums: Argnums = 0, *, has_aux: Literal[True], holomorphic: bool = False,
             allow_int: bool = False, engine: JacobianEngine = "auto",
             order: Order | None = None, chunk_size: int | None = None, sparse: bool | Plan = False,
             pattern: Any = None, format: Format | None = None, check: bool = False,
             **options: Unpack[Options]) -> Planned[P, tuple[PyTree, Aux]]: ...


@overload
def jacobian(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
             allow_int: bool = False, *, engine: JacobianEngine = "auto",
             order: Order | None = None, chunk_size: int | None = None, sparse: bool | Plan = False,
             pattern: Any = None, format: Format | None = None, check: bool = False,
             **options: Unpack[Options]) -> Planned[..., PyTree]: ...


def jacobian(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
             allow_int: bool = False, *, engine: JacobianEngine = "auto",
             order: Order | None = None, chunk_size: int | None = None, sparse: bool | Plan = False,
             pattern: Any = None, format: Format | None = None, check: bool = False,  # noqa: A002
             **options: Unpack[Options]) -> Planned[P, PyTree]:
    r"""The Jacobian of a function: :math:`\partial f_i / \partial x_j`, by pushes or by pulls, whichever are fewer.

    Args:
      fun, argnums, has_aux, holomorphic, allow_int, chunk_size, options: as in :func:`jacrev`.
      engine: ``"forward"`` and ``"reverse"`` as in :func:`jacfwd` and :func:`jacrev`.  ``"elimination"`` multiplies the local Jacobians
        of the operations, vertex by vertex of the computational graph: fewer multiplications for programs with many scalars between
        few inputs and outputs.  It is planned while the program is traced, so that no value of it may be read by Python; a loop or a
        branch is one operation.  ``"waist"`` multiplies two factors where all that depends on the inputs goes through few numbers, as
        in an autoencoder (:mod:`dualrev.functional.waists`).  ``"sparse"`` pushes or pulls colours of columns or rows
        (:func:`dualrev.sparse.jacobian`) and writes the entries into a dense array.  ``"auto"`` takes one of these: while a program is
        traced, the one for which :mod:`dualrev.time_model` predicts the least time, where counts of inputs, outputs and equations
        leave it open; outside of ``jit`` it evaluates with a tape and pushes through it if the inputs have no more elements than the
        outputs, and pulls otherwise, or takes the compressed way where one call regains what finding the pattern takes.  An entry
        outside of the pattern is then 0, also where a sweep multiplies 0 by NaN.  ``jacobian(fun).plan(*args)`` says what is chosen,
        and why (a :class:`~dualrev.functional.choices.Choice`).
      order: of elimination: ``"forward"``, ``"reverse"``; ``"markowitz"``, the cheapest vertex next (the default); ``"search"``, a
        search of a few seconds, or a :class:`~dualrev.Search`; or ``dr.eliminate(...).order``.
      sparse, pattern, format, check: with ``sparse=True``, or a plan of :func:`dualrev.sparse.plan`, the result is a sparse matrix, and
        so are the leaves of a tree; see :func:`dualrev.sparse.jacobian`.

    Returns:
      As :func:`jacfwd`.

    Raises:
      TypeError: a dtype is not allowed.
      ValueError: ``order`` without elimination; with it, ``chunk_size``, an option about pulls, or an axis of symbolic length.
      NoDerivativeError: with elimination, a complex operation whose derivative is not a complex number.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.jacobian(lambda x: jnp.stack([x, x ** 2, x ** 3]))(2.0).tolist()
    [1.0, 4.0, 12.0]

    Source: [GriewankWalther2008, ch. 3 and 10].
    """
    if order is not None and engine != "elimination":
        raise ValueError(f"jacobian: order={order!r} is that of engine='elimination'; got engine={engine!r}")
    if engine == "sparse" and sparse is False:
        sparse, engine, format = True, "auto", format or "dense"  # noqa: A001
    if _is_sparse("jacobian", sparse, pattern, format, check, allow_int):
        request = requests.asked("jacobian", "jacobian", argnums, has_aux, engine, chunk_size, format or "bcoo", pattern, check,
                                    sparse, options, holomorphic=holomorphic)
        return derivatives.derivative(fun, request)
    checks.check_engine(engine, ("auto", "forward", "reverse", "elimination", "waist", "sparse"), "jacobian")
    if engine == "elimination" and chunk_size is not None:
        raise ValueError(f"jacobian: engine='elimination' makes no sweep that chunk_size={chunk_size!r} could divide")
    key = eliminated.check_order("markowitz" if order is None else order, "jacobian")

    def by(way: str) -> Callable[P, PyTree]:
        own: Engine = "forward" if way == "forward" else "reverse"
        chunks = None if way == "elimination" else chunk_size
        return _jacobian("jacobian", fun, argnums, has_aux, holomorphic, allow_int, own, DIRECTIONS[way], chunks, options, order=key)

    if engine != "auto":
        return as_asked(by(engine), "jacobian", fun, engine)
    why_dense = "derivatives of other than real inputs are asked for" if holomorphic or allow_int else None
    compressed = SparseWay("jacobian", fun, argnums, has_aux, chunk_size, options, why_dense)
    is_about_sweeps = chunk_size is not None or any(options.get(name) for name in ABOUT_SWEEPS)
    why_sweeps = "an option is about sweeps" if is_about_sweeps else why_dense
    why_whole = why_dense or ("an option is about cotangents" if any(options.get(name) for name in ABOUT_SWEEPS) else None)
    chosen = ways.jacobian(fun, checks.normalize_argnums(argnums), has_aux, by, by("auto"), compressed, why_sweeps, why_whole)

    @wraps(fun, argnums, "Jacobian")
    def jacobian_f(*args: P.args, **kwargs: P.kwargs) -> PyTree:
        return chosen(*args, **kwargs)

    return with_plan(jacobian_f, chosen.plan)


#: What each way does with its engine.
DIRECTIONS = {"forward": "push", "tape": "push", "reverse": "pull", "auto": "auto", "elimination": "eliminate", "waist": "waist"}
#: Options that elimination can't honour.
ABOUT_SWEEPS = ("zero_wins", "cotangent_dtype", "non_float")


@overload
def hessian(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: Literal[False] = False, holomorphic: bool = False, *,
            engine: HessianEngine | None = None, chunk_size: int | None = None, sparse: bool | Plan = False, pattern: Any = None,
            format: Format | None = None, check: bool = False, **options: Unpack[Options]) -> Planned[P, PyTree]: ...


@overload
def hessian(fun: Callable[P, tuple[PyTree, Aux]], argnums: Argnums = 0, *, has_aux: Literal[True], holomorphic: bool = False,
            engine: HessianEngine | None = None, chunk_size: int | None = None, sparse: bool | Plan = False, pattern: Any = None,
            format: Format | None = None, check: bool = False, **options: Unpack[Options]) -> Planned[P, tuple[PyTree, Aux]]: ...


@overload
def hessian(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False, *,
            engine: HessianEngine | None = None, chunk_size: int | None = None, sparse: bool | Plan = False, pattern: Any = None,
            format: Format | None = None, check: bool = False, **options: Unpack[Options]) -> Planned[..., PyTree]: ...


def hessian(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False, *,
            engine: HessianEngine | None = None, chunk_size: int | None = None, sparse: bool | Plan = False, pattern: Any = None,
            format: Format | None = None, check: bool = False,  # noqa: A002
            **options: Unpack[Options]) -> Planned[P, PyTree]:
    r"""The matrix of second derivatives: :math:`\partial^2 f / \partial x_i\, \partial x_j`.

    Args:
      fun, argnums, has_aux, holomorphic, chunk_size, options: as in :func:`jacfwd`.
      engine: None for forward over reverse, the cheapest for most scalar functions; one engine for both orders; ``"sparse"`` for
        colours of columns (:func:`dualrev.sparse.hessian`) that are written into a dense array; or ``"auto"`` for the one of these
        four of which :mod:`dualrev.time_model` predicts the shortest time, decided once for each shape.  ``hessian(fun, engine="auto")
        .plan(*args)`` says which, and why (a :class:`~dualrev.functional.choices.Choice`).
      sparse, pattern, format, check: with ``sparse=True``, or a plan of :func:`dualrev.sparse.plan`, the result is a sparse matrix, and
        so are the leaves of a tree; see :func:`dualrev.sparse.hessian`.

    Returns:
      A function that returns a tree of outputs of trees of inputs of trees of inputs; and ``aux`` where ``has_aux``.

    Raises:
      TypeError: a dtype is not allowed.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.hessian(lambda x: x[0] ** 2 * x[1])(jnp.array([1.0, 2.0])).tolist()
    [[4.0, 2.0], [2.0, 0.0]]

    Source: [GriewankWalther2008, ch. 5].
    """
    if engine == "sparse" and sparse is False:
        sparse, engine, format = True, None, format or "dense"  # noqa: A001
    if _is_sparse("hessian", sparse, pattern, format, check, False):
        request = requests.asked("hessian", "hessian", argnums, has_aux, engine, chunk_size, format or "bcoo", pattern, check,
                                    sparse, options, holomorphic=holomorphic)
        return derivatives.derivative(fun, request)
    checks.check_engine(engine, (None, "auto", "forward", "reverse", "sparse"), "hessian")
    if engine == "auto":
        def by(each: str | None) -> Callable[P, PyTree]:
            return hessian(fun, argnums, has_aux, holomorphic, engine=each,  # type: ignore[arg-type]  # one of the engines
                           chunk_size=chunk_size, **options)

        why_dense = "derivatives of other than real inputs are asked for" if holomorphic else None
        compressed = SparseWay("hessian", fun, argnums, has_aux, chunk_size, options, why_dense)
        chosen = ways.hessian(fun, checks.normalize_argnums(argnums), has_aux, by, compressed)

        @wraps(fun, argnums, "Hessian")
        def hessian_f(*args: P.args, **kwargs: P.kwargs) -> PyTree:
            return chosen(*args, **kwargs)

        return with_plan(hessian_f, chosen.plan)

    def one_order(direction: str, f: Callable[P, PyTree]) -> Callable[P, PyTree]:
        name, own = ("jacfwd", "forward") if direction == "push" else ("jacrev", "reverse")
        return _jacobian(name, f, argnums, has_aux, holomorphic, False, own, direction, chunk_size, options, asked="hessian")

    own: Engine | None = None if engine is None else "forward" if engine == "forward" else "reverse"
    inner, outer = {None: ("pull", "push"), "forward": ("push", "push"), "reverse": ("pull", "pull")}[own]
    name, force = ("forward over reverse", "hessian(f)") if own is None else (own, "")
    return as_asked(one_order(outer, one_order(inner, fun)), "hessian", fun, name, force)
