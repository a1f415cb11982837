"""The functional face: gradients, Jacobians, Hessians and Hessian-vector products, with jax's signatures plus ``engine=``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
from jax import lax
from jax.errors import InconclusiveDimensionOperation
from jax.tree_util import tree_leaves, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import convert_to, is_differentiable, tangent_aval, typeof
from dualrev._jax.traces import is_eager
from dualrev.engines import sweeps
from dualrev.functional import api, checks
from dualrev.functional.checks import Argnums
from dualrev.functional.results import pull_flat
from dualrev.linear import zeros
from dualrev.linear.dense import DenseMap
from dualrev.options.settings import Options, Request, using

Engine = Literal["forward", "reverse"]


class Partial:
    """A call with some positional arguments singled out to be differentiated."""

    __slots__ = ("args", "fun", "is_single", "kwargs", "positions")

    def __init__(self, call: str, fun: Callable[..., Any], argnums: int | tuple[int, ...], args: tuple[Any, ...],
                 kwargs: dict[str, Any]):
        self.fun = fun
        self.args = args
        self.kwargs = kwargs
        self.is_single = isinstance(argnums, int)
        self.positions = checks.resolve_argnums(argnums, len(args), call)

    @property
    def __name__(self) -> str:
        return checks.name_of(self.fun)

    @property
    def primals(self) -> tuple[Any, ...]:
        return tuple([self.args[i] for i in self.positions])

    def __call__(self, *primals: Any) -> Any:
        args = list(self.args)
        for i, x in zip(self.positions, primals, strict=True):
            args[i] = x
        return self.fun(*args, **self.kwargs)

    def unwrap(self, values: Sequence[Any]) -> Any:
        """One value for an int ``argnums``, a tuple for a tuple."""
        return values[0] if self.is_single else tuple(values)

    def flat_call(self, has_aux: bool, request: Request) -> tuple[api.FlatCall, list[Any]]:
        return api.prepare(self, self.primals, has_aux, request, "arguments")


def _wraps(fun: Callable[..., Any], argnums: Any, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    name = checks.name_of(fun)
    doc = (f"{what} of {name} with respect to positional argument(s) {argnums}. Takes the same arguments as {name} but returns "
           f"the {what.lower()}, which has the structure of the arguments at positions {argnums}.")

    def decorate(derived: Callable[..., Any]) -> Callable[..., Any]:
        try:
            derived = functools.wraps(fun)(derived)
        except (AttributeError, TypeError):  # a callable without a function's attributes
            derived.__name__ = name
        derived.__doc__ = doc
        return derived

    return decorate


def value_and_grad(fun: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
                   allow_int: bool = False, reduce_axes: Sequence[Any] = (), *,
                   engine: Engine = "reverse", **options: Unpack[Options]) -> Callable[..., tuple[Any, Any]]:
    r"""The function that returns both a scalar function's value and its gradient.

    :math:`x \mapsto (f(x),\, \nabla f(x))`, from one evaluation and one pull.

    Args:
      fun: function of arrays or pytrees of them, with a scalar output.
      argnums: which positional arguments to differentiate: an int, or a sequence of ints; negative ones count from the end.
      has_aux: whether ``fun`` returns ``(value, aux)``.
      holomorphic: whether ``fun`` is promised to be holomorphic; then inputs and output are complex.
      allow_int: whether integer and boolean inputs are allowed; their gradient is of dtype float0.
      reduce_axes: accepted for compatibility; must be empty.
      engine: ``"reverse"`` for one pull, ``"forward"`` for one push for each input element.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, gradient)``, or ``((value, aux), gradient)``.

    Raises:
      TypeError: the output is not a scalar, or a dtype is not allowed; ``argnums`` asks for more arguments than are given.

    >>> import dualrev as dr
    >>> value, gradient = dr.value_and_grad(lambda x, y: x * y ** 2, argnums=(0, 1))(2.0, 3.0)
    >>> float(value), [float(g) for g in gradient]
    (18.0, [9.0, 12.0])

    Source: [Griewank & Walther 2008, ch. 3].
    """
    return _value_and_grad("value_and_grad", fun, argnums, has_aux, holomorphic, allow_int, reduce_axes, engine, options)


def _value_and_grad(name: str, fun: Callable[..., Any], argnums: Argnums, has_aux: bool, holomorphic: bool, allow_int: bool,
                    reduce_axes: Sequence[Any], engine: Engine, options: Options) -> Callable[..., tuple[Any, Any]]:
    with errors.calling(name):
        checks.check_callable(fun)
    checks.check_engine(engine, ("forward", "reverse"), name)
    positions = checks.normalize_argnums(argnums)
    request = Request.of(name, options, isinstance(positions, int))
    if reduce_axes:
        raise NotImplementedError("reduce_axes argument to grad is deprecated")

    @_wraps(fun, argnums, "Value and gradient")
    def value_and_grad_f(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with errors.calling(name), using(request.settings):
            partial = Partial("grad", fun, positions, args, kwargs)
            call, flat = partial.flat_call(has_aux, request)
            for x in flat:
                checks.check_input_dtype("grad", holomorphic, allow_int, x)
            results, linear_map, s = api.linearize_flat(call, flat, engine, request)
            value, aux = call.finish(results)
            checks.check_scalar(value)
            checks.check_output_dtype("grad", holomorphic, value)
            (out,) = tree_leaves(value)
            gradient = tree_unflatten(s.in_tree, pull_flat(linear_map, s, [_one_like(out)]))
            gradient = partial.unwrap(gradient)
            return ((value, aux), gradient) if has_aux else (value, gradient)

    return value_and_grad_f


_ones: dict[Any, Any] = {}


def _one_like(out: Any) -> Any:
    """The scalar 1 in the type of a function's value."""
    if not isinstance(out, jax.Array):  # a number of Python or NumPy, or a literal of a program of jax's
        aval = typeof(out)
        return convert_to(lax.full((), 1, aval.dtype), aval)
    if not is_eager((out,)):
        return lax.full_like(out, 1)
    key = (out.dtype, out.weak_type, out.sharding)
    if key not in _ones:
        if len(_ones) > 64:
            _ones.clear()
        _ones[key] = lax.full_like(out, 1)
    return _ones[key]


def grad(fun: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
         allow_int: bool = False, reduce_axes: Sequence[Any] = (), *, engine: Engine = "reverse",
         **options: Unpack[Options]) -> Callable[..., Any]:
    r"""The gradient of a scalar function: :math:`x \mapsto \nabla f(x)`.

    Args:
      fun, argnums, has_aux, holomorphic, allow_int, reduce_axes, engine, options: as in :func:`value_and_grad`.

    Returns:
      A function with the arguments of ``fun`` that returns the gradient, with the structure of the arguments that ``argnums``
      names; and ``aux`` where ``has_aux``.

    Raises:
      TypeError: as :func:`value_and_grad`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.grad(lambda x: jnp.sum(x ** 3))(jnp.array([1.0, 2.0])).tolist()
    [3.0, 12.0]

    Source: [Griewank & Walther 2008, ch. 3].
    """
    value_and_grad_f = _value_and_grad("grad", fun, argnums, has_aux, holomorphic, allow_int, reduce_axes, engine, options)

    @_wraps(fun, argnums, "Gradient")
    def grad_f(*args: Any, **kwargs: Any) -> Any:
        value, gradient = value_and_grad_f(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return grad_f


def _jacobian_tree(blocks: Sequence[Sequence[Any]], out_tree: Any, in_tree: Any, partial: Partial) -> Any:
    """A tree of outputs of trees of inputs."""
    return tree_unflatten(out_tree, [partial.unwrap(tree_unflatten(in_tree, row)) for row in blocks])


def _jacobian(name: str, fun: Callable[..., Any], argnums: Argnums, has_aux: bool, holomorphic: bool, allow_int: bool,
              engine: str | None, direction: str, chunk_size: int | None, options: Options,
              asked: str | None = None) -> Callable[..., Any]:
    with errors.calling(asked or name):
        checks.check_callable(fun)
    positions = checks.normalize_argnums(argnums)
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"{name}: chunk_size must be a positive int or None; got {chunk_size!r}")
    request = Request.of(asked or name, options, isinstance(positions, int))

    @_wraps(fun, argnums, "Jacobian")
    def jacobian_f(*args: Any, **kwargs: Any) -> Any:
        with errors.calling(asked or name), using(request.settings):
            partial = Partial(name, fun, positions, args, kwargs)
            call, flat = partial.flat_call(has_aux, request)
            for x in flat:
                if direction == "push":
                    checks.check_forward_input_dtype(name, holomorphic, x)
                else:
                    checks.check_input_dtype(name, holomorphic, allow_int, x)
            if direction == "push" and engine == "forward":
                results, blocks = sweeps.push_columns(call, flat, range(len(flat)), lambda: call.n_out, chunk_size)
                outs = results[: call.n_out]
            else:
                results, linear_map, s = api.linearize_flat(call, flat, "forward" if engine == "forward" else "reverse",
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
            _, aux = call.finish(results)
            jacobian = _jacobian_tree(blocks, call.out_tree, call.in_tree, partial)
            return (jacobian, aux) if has_aux else jacobian

    return jacobian_f


def _has_fewer_inputs(shape: tuple[Any, Any]) -> bool:
    """Whether there are no more inputs than outputs; symbols that do not tell count as inputs that are more."""
    m, n = shape
    try:
        return bool(n <= m)
    except InconclusiveDimensionOperation:
        return False


def _is_real(x: Any) -> bool:
    return bool(jnp.issubdtype(typeof(x).dtype, jnp.floating))


def _push_blocks(linear_map: Any, s: Any, chunk_size: int | None) -> list[list[Any]]:
    avals = [tangent_aval(a) for a in s.in_avals]
    outs = [a if is_differentiable(a) else None for a in s.out_avals]

    def push(*tangents: Any) -> list[Any]:
        moved = linear_map.push(*tangents)
        return [zeros.fit(t, a) for t, a in zip(moved, outs, strict=True) if a is not None]

    stacked = iter(sweeps.sweep(push, avals, chunk_size))
    n = sum(a.size for a in avals)
    full = [next(stacked) if a is not None else jnp.zeros((n, *aval.shape), aval.dtype)
            for a, aval in zip(outs, s.out_avals, strict=True)]
    return sweeps.columns(full, avals, s.out_avals)


def _pull_blocks(linear_map: Any, s: Any, chunk_size: int | None) -> list[list[Any]]:
    moving = [a for a, moves in zip(s.ct_avals, s.active, strict=True) if moves]

    def pull(*cotangents: Any) -> list[Any]:
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


def jacfwd(fun: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False, *,
           engine: Engine = "forward", chunk_size: int | None = None, **options: Unpack[Options]) -> Callable[..., Any]:
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

    Source: [Griewank & Walther 2008, ch. 3].
    """
    checks.check_engine(engine, ("forward", "reverse"), "jacfwd")
    return _jacobian("jacfwd", fun, argnums, has_aux, holomorphic, False, engine, "push", chunk_size, options)


def jacrev(fun: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
           allow_int: bool = False, *, engine: Engine = "reverse", chunk_size: int | None = None,
           **options: Unpack[Options]) -> Callable[..., Any]:
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

    Source: [Griewank & Walther 2008, ch. 3].
    """
    checks.check_engine(engine, ("forward", "reverse"), "jacrev")
    return _jacobian("jacrev", fun, argnums, has_aux, holomorphic, allow_int, engine, "pull", chunk_size, options)


def jacobian(fun: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
             allow_int: bool = False, *, engine: Literal["auto", "forward", "reverse"] = "auto",
             chunk_size: int | None = None, **options: Unpack[Options]) -> Callable[..., Any]:
    r"""The Jacobian of a function: :math:`\partial f_i / \partial x_j`, by pushes or by pulls, whichever are fewer.

    Args:
      fun, argnums, has_aux, holomorphic, allow_int, chunk_size, options: as in :func:`jacrev`.
      engine: ``"forward"`` and ``"reverse"`` as in :func:`jacfwd` and :func:`jacrev`; ``"auto"`` evaluates once with a tape and
        pushes through it if the inputs have no more elements than the outputs, and pulls otherwise.

    Returns:
      As :func:`jacfwd`.

    Raises:
      TypeError: a dtype is not allowed.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.jacobian(lambda x: jnp.stack([x, x ** 2, x ** 3]))(2.0).tolist()
    [1.0, 4.0, 12.0]

    Source: [Griewank & Walther 2008, ch. 3].
    """
    checks.check_engine(engine, ("auto", "forward", "reverse"), "jacobian")
    if engine == "forward":
        return _jacobian("jacobian", fun, argnums, has_aux, holomorphic, allow_int, "forward", "push", chunk_size, options)
    direction = "pull" if engine == "reverse" else "auto"
    return _jacobian("jacobian", fun, argnums, has_aux, holomorphic, allow_int, "reverse", direction, chunk_size, options)


def hessian(fun: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False, *,
            engine: Literal["forward", "reverse"] | None = None, chunk_size: int | None = None,
            **options: Unpack[Options]) -> Callable[..., Any]:
    r"""The matrix of second derivatives: :math:`\partial^2 f / \partial x_i\, \partial x_j`.

    Args:
      fun, argnums, has_aux, holomorphic, chunk_size, options: as in :func:`jacfwd`.
      engine: None for forward over reverse, the cheapest for scalar functions; or one engine for both orders.

    Returns:
      A function that returns a tree of outputs of trees of inputs of trees of inputs; and ``aux`` where ``has_aux``.

    Raises:
      TypeError: a dtype is not allowed.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.hessian(lambda x: x[0] ** 2 * x[1])(jnp.array([1.0, 2.0])).tolist()
    [[4.0, 2.0], [2.0, 0.0]]

    Source: [Griewank & Walther 2008, ch. 5].
    """
    checks.check_engine(engine, (None, "forward", "reverse"), "hessian")

    def one_order(direction: str, f: Callable[..., Any]) -> Callable[..., Any]:
        name, own = ("jacfwd", "forward") if direction == "push" else ("jacrev", "reverse")
        return _jacobian(name, f, argnums, has_aux, holomorphic, False, own, direction, chunk_size, options, asked="hessian")

    inner, outer = {None: ("pull", "push"), "forward": ("push", "push"), "reverse": ("pull", "pull")}[engine]
    return one_order(outer, one_order(inner, fun))


def hvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], *,
        engine: Literal["forward", "reverse"] | None = None, **options: Unpack[Options]) -> Any:
    r"""The Hessian of a scalar function times a vector: :math:`\nabla^2 f(x)\, v`, without forming the Hessian.

    Args:
      fun: function of arrays or pytrees of them, with a scalar output.
      primals: tuple or list of its arguments.
      tangents: the vector, with the structure, shapes and dtypes of ``primals``.
      engine: None for forward over reverse; or one engine for both orders.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      The product: for one primal, a value with its structure; for several, a tuple with one for each.

    Raises:
      TypeError, ValueError: the output is not a scalar; tangents do not fit the primals.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.hvp(lambda x: x[0] ** 2 * x[1], (jnp.array([1.0, 2.0]),), (jnp.array([1.0, 0.0]),)).tolist()
    [4.0, 2.0]

    Source: [Pearlmutter 1994].
    """
    checks.check_engine(engine, (None, "forward", "reverse"), "hvp")
    with errors.calling("hvp"):
        checks.check_callable(fun)
        if not Request.of("hvp", options).keeps_all:
            checks.check_jvp_arguments(primals, tangents)
        argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
        gradient = _value_and_grad("hvp", fun, argnums, False, False, False, (), engine or "reverse", options)
        _, product = api.jvp(lambda *args: gradient(*args)[1], primals, tangents, engine=engine or "forward", **options)
        return product
