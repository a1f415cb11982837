"""The functional face: gradients and Hessian-vector products, with jax's signatures plus ``engine=``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, ParamSpec, TypeVar, Unpack, overload

import jax
from jax import lax
from jax.tree_util import tree_leaves, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ArrayLike, DType, convert_to, typeof
from dualrev._jax.sharding import AxisName, cotangent_sharding, explicit_sharding, is_sum
from dualrev._jax.traces import is_eager
from dualrev._jax.trees import PyTree
from dualrev.functional import api, automatic, checks, flat_calls, watching
from dualrev.functional.api import Aux
from dualrev.functional.checks import Argnums
from dualrev.functional.choices import Planned, as_asked, with_plan
from dualrev.functional.flat_calls import AnyEngine, Engine
from dualrev.functional.results import pull_flat
from dualrev.functional.watching import is_watched
from dualrev.options.settings import Options, Request, using

ENGINES: tuple[Engine, ...] = ("reverse", "forward")

#: The arguments of a user's function, and what its derivative returns.
P = ParamSpec("P")
Result = TypeVar("Result")


class Partial:
    """A call with some positional arguments singled out to be differentiated."""

    __slots__ = ("args", "fun", "is_single", "kwargs", "positions")

    def __init__(self, call: str, fun: Callable[..., PyTree], argnums: int | tuple[int, ...], args: tuple[PyTree, ...],
                 kwargs: dict[str, PyTree]):
        self.fun = fun
        self.args = args
        self.kwargs = kwargs
        self.is_single = isinstance(argnums, int)
        self.positions = checks.resolve_argnums(argnums, len(args), call)

    @property
    def __name__(self) -> str:
        return checks.name_of(self.fun)

    @property
    def primals(self) -> tuple[PyTree, ...]:
        return tuple([self.args[i] for i in self.positions])

    def __call__(self, *primals: PyTree) -> PyTree:
        args = list(self.args)
        for i, x in zip(self.positions, primals, strict=True):
            args[i] = x
        return self.fun(*args, **self.kwargs)

    def unwrap(self, values: Sequence[PyTree]) -> PyTree:
        """One value for an int ``argnums``, a tuple for a tuple."""
        return values[0] if self.is_single else tuple(values)

    def flat_call(self, has_aux: bool, request: Request) -> tuple[flat_calls.FlatCall, list[jax.Array]]:
        return flat_calls.prepare(self, self.primals, has_aux, request, "arguments")


def wraps(fun: Callable[P, PyTree], argnums: Argnums, what: str) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    name = checks.name_of(fun)
    doc = (f"{what} of {name} with respect to positional argument(s) {argnums}. Takes the same arguments as {name} but returns "
           f"the {what.lower()}, which has the structure of the arguments at positions {argnums}.")

    def decorate(plain: Callable[P, Result]) -> Callable[P, Result]:
        def derived(*args: P.args, **kwargs: P.kwargs) -> Result:
            if not watching.is_made:
                return plain(*args, **kwargs)
            return watching.watched(f"{what.lower()} of {name}", plain, *args, **kwargs)

        try:
            derived = functools.wraps(fun)(derived)
            derived.__dict__.pop("plan", None)  # that of ``fun``, if it is itself a derivative
        except (AttributeError, TypeError):  # a callable without a function's attributes
            derived.__name__ = name
        derived.__doc__ = doc
        return derived

    return decorate


@overload
def value_and_grad(fun: Callable[P, ArrayLike], argnums: Argnums = 0, has_aux: Literal[False] = False, holomorphic: bool = False,
                   allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), *,
                   engine: AnyEngine = "reverse", **options: Unpack[Options]) -> Planned[P, tuple[jax.Array, PyTree]]: ...


@overload
def value_and_grad(fun: Callable[P, tuple[ArrayLike, Aux]], argnums: Argnums = 0, *, has_aux: Literal[True], holomorphic: bool = False,
                   allow_int: bool = False, reduce_axes: Sequence[AxisName] = (),
                   engine: AnyEngine = "reverse", **options: Unpack[Options]) -> Planned[P, tuple[tuple[jax.Array, Aux], PyTree]]: ...


@overload
def value_and_grad(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
                   allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), *,
                   engine: AnyEngine = "reverse", **options: Unpack[Options]) -> Planned[..., tuple[PyTree, PyTree]]: ...


def value_and_grad(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
                   allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), *,
                   engine: AnyEngine = "reverse", **options: Unpack[Options]) -> Planned[P, tuple[PyTree, PyTree]]:
    r"""The function that returns both a scalar function's value and its gradient.

    :math:`x \mapsto (f(x),\, \nabla f(x))`, from one evaluation and one pull.

    Args:
      fun: function of arrays or pytrees of them, with a scalar output.
      argnums: which positional arguments to differentiate: an int, or a sequence of ints; negative ones count from the end.
      has_aux: whether ``fun`` returns ``(value, aux)``.
      holomorphic: whether ``fun`` is promised to be holomorphic; then inputs and output are complex.
      allow_int: whether integer and boolean inputs are allowed; their gradient is of dtype float0.
      reduce_axes: accepted for compatibility; must be empty.
      engine: ``"reverse"`` for one pull, ``"forward"`` for one push for each input element, ``"auto"`` for reverse, or
        for forward where :mod:`dualrev.time_model` predicts a clearly shorter time; both are traced, once for each shape of the
        arguments.  ``value_and_grad(fun, engine="auto").plan(*args)`` says which is taken, and why.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, gradient)``, or ``((value, aux), gradient)``.

    Raises:
      TypeError: the output is not a scalar, or a dtype is not allowed; ``argnums`` asks for more arguments than are given.

    >>> import dualrev as dr
    >>> value, gradient = dr.value_and_grad(lambda x, y: x * y ** 2, argnums=(0, 1))(2.0, 3.0)
    >>> float(value), [float(g) for g in gradient]
    (18.0, [9.0, 12.0])

    Source: [GriewankWalther2008, ch. 3].
    """
    found = _value_and_grad("value_and_grad", fun, argnums, has_aux, holomorphic, allow_int, reduce_axes, engine, options)

    @wraps(fun, argnums, "Value and gradient")
    def value_and_grad_f(*args: P.args, **kwargs: P.kwargs) -> tuple[PyTree, PyTree]:
        return found(*args, **kwargs)

    return with_plan(value_and_grad_f, found.plan)


def _value_and_grad(name: str, fun: Callable[P, PyTree], argnums: Argnums, has_aux: bool, holomorphic: bool, allow_int: bool,
                    reduce_axes: Sequence[AxisName], engine: AnyEngine, options: Options) -> Planned[P, tuple[PyTree, PyTree]]:
    with errors.calling(name):
        checks.check_callable(fun)
    checks.check_engine(engine, ("auto", "forward", "reverse") if name != "hvp" else ("forward", "reverse"), name)
    positions = checks.normalize_argnums(argnums)
    if engine == "auto":
        def way(each: Engine, why_not: Callable[[automatic.Asking], str | None]) -> automatic.Way:
            call = _value_and_grad(name, fun, argnums, has_aux, holomorphic, allow_int, reduce_axes, each, options)
            return automatic.Way(each, call, f'{name}(f, engine="{each}")', why_not)

        reverse, forward = way("reverse", lambda _: None), way("forward", automatic.has_few_inputs)
        return automatic.Automatic(name, fun, positions, has_aux, [reverse, forward], lambda _: "reverse", reverse.call)
    request = Request.of(name, options, isinstance(positions, int))
    if reduce_axes:
        raise NotImplementedError("reduce_axes argument to grad is deprecated")

    def value_and_grad_f(*args: P.args, **kwargs: P.kwargs) -> tuple[PyTree, PyTree]:
        with errors.calling(name), using(request.settings):
            partial = Partial("grad", fun, positions, args, kwargs)
            call, flat = partial.flat_call(has_aux, request)
            for x in flat:
                checks.check_input_dtype("grad", holomorphic, allow_int, x)
            results, linear_map, s = flat_calls.linearize_flat(call, flat, engine, request)
            value, aux = call.finish(results)
            checks.check_scalar(value)
            checks.check_output_dtype("grad", holomorphic, value)
            (out,) = tree_leaves(value)
            gradient = tree_unflatten(s.in_tree, pull_flat(linear_map, s, [_one_like(out)]))
            gradient = partial.unwrap(gradient)
            return ((value, aux), gradient) if has_aux else (value, gradient)

    return as_asked(value_and_grad_f, name, fun, engine)


_ones: dict[tuple[DType, bool, jax.sharding.Sharding], jax.Array] = {}


def _one_like(out: ArrayLike) -> jax.Array:
    """The scalar 1 in the type of a function's value."""
    if not isinstance(out, jax.Array):  # a number of Python or NumPy, or a literal of a program of jax's
        aval = typeof(out)
        return convert_to(lax.full((), 1, aval.dtype), aval)
    if is_sum(explicit_sharding(typeof(out))):
        return lax.full((), 1, out.dtype, sharding=cotangent_sharding(typeof(out)))
    if not is_eager((out,)):
        return lax.full_like(out, 1)
    key = (out.dtype, out.weak_type, out.sharding)
    if key not in _ones:
        if len(_ones) > 64:
            _ones.clear()
        _ones[key] = lax.full_like(out, 1)
    return _ones[key]


@overload
def grad(fun: Callable[P, ArrayLike], argnums: Argnums = 0, has_aux: Literal[False] = False, holomorphic: bool = False,
         allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), *, engine: AnyEngine = "reverse",
         **options: Unpack[Options]) -> Planned[P, PyTree]: ...


@overload
def grad(fun: Callable[P, tuple[ArrayLike, Aux]], argnums: Argnums = 0, *, has_aux: Literal[True], holomorphic: bool = False,
         allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), engine: AnyEngine = "reverse",
         **options: Unpack[Options]) -> Planned[P, tuple[PyTree, Aux]]: ...


@overload
def grad(fun: Callable[..., PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
         allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), *, engine: AnyEngine = "reverse",
         **options: Unpack[Options]) -> Planned[..., PyTree]: ...


def grad(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False,
         allow_int: bool = False, reduce_axes: Sequence[AxisName] = (), *, engine: AnyEngine = "reverse",
         **options: Unpack[Options]) -> Planned[P, PyTree]:
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

    Source: [GriewankWalther2008, ch. 3].
    """
    value_and_grad_f = _value_and_grad("grad", fun, argnums, has_aux, holomorphic, allow_int, reduce_axes, engine, options)

    @wraps(fun, argnums, "Gradient")
    def grad_f(*args: P.args, **kwargs: P.kwargs) -> PyTree:
        value, gradient = value_and_grad_f(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return with_plan(grad_f, value_and_grad_f.plan)


@is_watched("hvp")
def hvp(fun: Callable[..., PyTree], primals: Sequence[PyTree], tangents: Sequence[PyTree], *,
        engine: Engine | None = None, **options: Unpack[Options]) -> PyTree:
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

    Source: [Pearlmutter1994].
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
