"""What is asked: a function, its arguments, which of them are differentiated and how, and its program."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_leaves, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_array_like, typeof
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree
from dualrev.functional import api, checks
from dualrev.functional.automatic import n_entries
from dualrev.linear.residuals import Residuals
from dualrev.options.settings import Options

Derivative: TypeAlias = Literal["grad", "jacobian", "hessian"]
#: What says that a function can't be traced.
UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)


def is_abstract(x: object) -> bool:
    return isinstance(x, (jax.ShapeDtypeStruct, ShapedArray))


def _is_array(x: object) -> bool:
    return is_abstract(x) or is_array_like(x)


def _is_float(x: Any) -> bool:
    if not _is_array(x):
        return False
    dtype = x.dtype if is_abstract(x) else typeof(x).dtype
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def described(x: Any) -> str:
    """dtype and shape of an array, or what else it is."""
    if not _is_array(x):
        return repr(x) if isinstance(x, (str, bool, int, type(None))) else type(x).__name__
    if isinstance(x, (bool, int)):
        return f"the Python number {x!r}"
    aval = x if is_abstract(x) else typeof(x)
    return f"{aval.dtype}[{', '.join(map(str, aval.shape))}]"


class Question:
    """A function and its arguments; ``Raises`` as :func:`dualrev.explain`."""

    def __init__(self, fun: Callable[..., PyTree], args: tuple[PyTree, ...], kwargs: dict[str, PyTree], derivative: Derivative | None,
                 argnums: checks.Argnums | None, has_aux: bool):
        checks.check_callable(fun)
        if derivative is not None and derivative not in get_args(Derivative):
            raise ValueError(f"explain: derivative must be 'grad', 'jacobian', 'hessian' or None for the one that fits the output; got "
                             f"{derivative!r}")
        self.fun = fun
        self.args = args
        self.kwargs = kwargs
        self.has_aux = has_aux
        self.argnums = self._argnums(argnums)
        self.positions = checks.resolve_argnums(self.argnums, len(args), "explain")
        self.leaves, self.tree = tree_flatten((args, kwargs))
        paths = tree_flatten_with_path((args, kwargs))[0]
        #: For each leaf, whether it belongs to an argument that is differentiated; what it is called.
        self.is_asked = [path[0].idx == 0 and path[1].idx in self.positions for path, _ in paths]
        parameters = _parameters(fun)
        self.names = [_name(path, parameters) for path, _ in paths]
        self.is_nested = [len(path) > 2 for path, _ in paths]
        #: Numbers of Python stay as they are, so that the function may count with them.
        self.traced = [i for i, x in enumerate(self.leaves) if _is_array(x) and not isinstance(x, (bool, int))]
        self.moving = [i for i in self.traced if self.is_asked[i] and _is_float(self.leaves[i])]
        if not self.moving:
            asked = ", ".join([f"{name}: {described(x)}" for name, x, is_own in zip(self.names, self.leaves, self.is_asked, strict=True)
                               if is_own])
            raise TypeError(f"explain: {self.name} has no input to differentiate by: {asked or 'its arguments hold no arrays'}.  Give "
                            "floats: 2.0 for 2, jnp.arange(3.0) for jnp.arange(3); or say by argnums= which arguments to differentiate")
        #: Whether every leaf that is asked for is a float; if not, ``non_float="none"`` passes the others through.
        self.is_plain = len(self.moving) == sum(self.is_asked)
        n = n_entries([self.leaves[i] for i in self.moving])
        if n == math.inf:
            raise ValueError("explain: the length of an axis is a symbol, and costs are those of numbers; give a ShapeDtypeStruct "
                             "of a typical shape")
        self.n = int(n)
        self.program = self._program()
        self.m = int(n_entries(self.outs))
        self.derivative: Derivative = derivative or ("grad" if [x.shape for x in self.outs] == [()] else "jacobian")
        self._check_outputs()

    @property
    def name(self) -> str:
        return checks.name_of(self.fun)

    def _argnums(self, asked: checks.Argnums | None) -> int | tuple[int, ...]:
        """What is asked for; by default the first argument with a float."""
        if asked is not None:
            return checks.normalize_argnums(asked)
        if not self.args:
            raise TypeError(f"explain: {self.name} was given no positional argument, so there is nothing to differentiate by; call "
                            "explain(f, *args) with the arguments of the function")
        return next((i for i, x in enumerate(self.args) if any(map(_is_float, tree_leaves(x)))), 0)

    # -------------------------------------------------------------------------------------------------------- programs

    def filled(self, given: Sequence[Any], places: Sequence[int]) -> tuple[tuple[PyTree, ...], dict[str, PyTree]]:
        """The arguments, with other leaves at some places."""
        leaves = list(self.leaves)
        for i, x in zip(places, given, strict=True):
            leaves[i] = x
        return cast("tuple[tuple[PyTree, ...], dict[str, PyTree]]", tree_unflatten(self.tree, leaves))

    def traced_with(self, call: Callable[..., PyTree]) -> ClosedJaxpr:
        """The program of a function of the user's arguments, which all are its operands."""
        def on_arrays(*given: jax.Array) -> list[Any]:
            args, kwargs = self.filled(given, self.traced)
            return [x for x in tree_leaves(call(*args, **kwargs)) if is_array_like(x)]

        return jax.make_jaxpr(on_arrays)(*[self.leaves[i] for i in self.traced])

    def _program(self) -> ClosedJaxpr:
        self._others: list[tuple[str, str]] = []

        def outs(*args: PyTree, **kwargs: PyTree) -> PyTree:
            found = self.fun(*args, **kwargs)
            if self.has_aux:
                if not (isinstance(found, tuple) and len(found) == 2):
                    raise TypeError(f"explain: with has_aux=True {self.name} must return (value, aux); it returns "
                                    f"{type(found).__name__}")
                found = found[0]
            leaves = tree_flatten_with_path(found)[0]
            self._others = [(keystr(path), type(x).__name__) for path, x in leaves if not is_array_like(x)]
            self._out_names = [keystr(path) for path, x in leaves if is_array_like(x)]
            return [x for _, x in leaves if is_array_like(x)]

        try:
            return self.traced_with(outs)
        except UNTRACEABLE as error:
            raise ValueError(f"explain: {self.name} can't be traced, as its Python code reads a value that is known when it runs: "
                             f"{str(error).splitlines()[0]}  Use jnp.where, jax.lax.cond or jax.lax.while_loop there") from error

    @property
    def outs(self) -> list[ShapedArray]:
        return list(self.program.out_avals)

    def _check_outputs(self) -> None:
        where = f"explain: {self.name} returns"
        if self._others:
            place, kind = self._others[0]
            raise TypeError(f"{where} a {kind}{f' at {place}' if place else ''}, which has no derivative; return arrays, and with "
                            "has_aux=True anything else beside them")
        if not self.outs:
            raise TypeError(f"{where} no array, so there is nothing to differentiate")
        for place, out in zip(self._out_names, self.outs, strict=True):
            what = f"{described(out)}{f' at {place}' if place else ''}"
            if not jnp.issubdtype(out.dtype, jnp.inexact):
                raise TypeError(f"{where} {what}, which has no derivative; return floats, or return it beside them with has_aux=True")
            if jnp.issubdtype(out.dtype, jnp.complexfloating):
                raise TypeError(f"{where} {what}, whose derivative is only one matrix if the function is holomorphic; return the "
                                "real and the imaginary part as two outputs")
        if self.derivative != "jacobian" and [x.shape for x in self.outs] != [()]:
            shapes = ", ".join(map(described, self.outs))
            raise TypeError(f"{where} {shapes}, and derivative={self.derivative!r} is that of one scalar; write "
                            "derivative='jacobian', or sum the output")

    def residuals(self, fun: Callable[..., PyTree], options: Options) -> Residuals:
        """What reverse mode keeps of a function of the user's arguments, found without running it."""
        found = Residuals()

        def on_arrays(*given: jax.Array) -> list[Any]:
            def of_moving(*moving: jax.Array) -> list[Any]:
                values = dict(zip(self.traced, given, strict=True)) | dict(zip(self.moving, moving, strict=True))
                args, kwargs = self.filled(list(values.values()), list(values))
                out = fun(*args, **kwargs)
                return [x for x in tree_leaves(out[0] if self.has_aux else out) if is_array_like(x)]

            places = {i: k for k, i in enumerate(self.traced)}
            outs, linear_map = api.linearize(of_moving, *[given[places[i]] for i in self.moving], **options)
            found.extend(linear_map.residuals())
            return list(outs)

        jax.make_jaxpr(on_arrays)(*[self.leaves[i] for i in self.traced])
        return found

    # ------------------------------------------------------------------------------------------------------- arguments

    @property
    def is_concrete(self) -> bool:
        """Whether the function can be run: every array has values."""
        return not any(is_abstract(x) or isinstance(x, Tracer) for x in self.leaves)

    @property
    def fixed_arguments(self) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
        """The arguments that ``jit`` must take as static: positions, names, and leaves within others, which ``jit`` can't take."""
        free = set(self.traced)
        positions = tuple([i for i, x in enumerate(self.args) if not _is_tree(x) and not _is_traced(x)])
        names = tuple([name for name, x in self.kwargs.items() if not _is_tree(x) and not _is_traced(x)])
        return positions, names, tuple([name for i, name in enumerate(self.names) if i not in free and self.is_nested[i]])


def _parameters(fun: Callable[..., PyTree]) -> list[str]:
    """The names of positional parameters, as far as they are known."""
    try:
        found = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _name(path: Sequence[Any], parameters: Sequence[str]) -> str:
    """What the user calls a leaf: the name of the parameter, and the place in it."""
    kind, top, *rest = path
    if kind.idx == 1:
        return f"{top.key}{keystr(tuple(rest))}"
    return f"{parameters[top.idx] if top.idx < len(parameters) else f'argument {top.idx}'}{keystr(tuple(rest))}"


def _is_traced(x: object) -> bool:
    return _is_array(x) and not isinstance(x, (bool, int))


def _is_tree(x: object) -> bool:
    """Whether an argument has leaves in it, or none: anything but a leaf."""
    return not jax.tree_util.all_leaves([x])


def why(error: BaseException) -> str:
    """The first line of an error."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


#: What says that a variant is not for a function.
NOT_FOR_IT = (*UNTRACEABLE, errors.DualrevError, NotImplementedError, ValueError, TypeError)
