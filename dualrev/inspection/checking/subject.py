"""The function that is checked, as a program of flat arrays: in its own dtypes, and in double precision where it permits that."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten, tree_leaves_with_path

from dualrev._jax.avals import ShapedArray, is_array_like, is_differentiable, is_extended, typeof
from dualrev._jax.calls import jit_p
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun, open_and_closed, stage
from dualrev._jax.trees import PyTree
from dualrev.functional.checks import name_of
from dualrev.inspection.checking.operations import equations, of_some
from dualrev.programs.functions import Function, as_arrays, split_arguments
from dualrev.programs.jaxprs import with_outputs
from dualrev.programs.partition import eqns_within

#: What jax raises where Python asks a traced value for its number.
NEEDS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError,
                jax.errors.NonConcreteBooleanIndexError)


@dataclass(frozen=True)
class Program:
    """A flat function at a point.  ``jaxpr`` is None where the function needs its values in Python and can't be traced."""

    run: Callable[..., Sequence[jax.Array]]
    jaxpr: ClosedJaxpr | None
    flat: list[jax.Array]
    #: Positions of the differentiable inputs.
    active: tuple[int, ...]
    is_double: bool
    promotes: bool = False

    def settings(self) -> AbstractContextManager[object]:
        """The settings of jax that it runs under."""
        stack = contextlib.ExitStack()
        if self.is_double:
            stack.enter_context(jax.enable_x64(True))
        if self.promotes:
            stack.enter_context(jax.numpy_dtype_promotion("standard"))
        return stack

    @property
    def points(self) -> list[jax.Array]:
        return [self.flat[i] for i in self.active]

    @property
    def of_points(self) -> Callable[..., list[jax.Array]]:
        """The function of the differentiable inputs, which returns the differentiable outputs."""
        return of_some(self.run, self.flat, self.active)

    @property
    def precision(self) -> float:
        """The machine epsilon of the coarsest floating dtype in it."""
        dtypes = {x.dtype for x in self.points} | (set() if self.jaxpr is None else _dtypes(self.jaxpr))
        return max([float(jnp.finfo(d).eps) for d in dtypes], default=float(jnp.finfo(jnp.float64).eps))


def _dtypes(jaxpr: ClosedJaxpr) -> set[np.dtype]:
    """The floating dtypes of all results in a program."""
    found = {getattr(v.aval, "dtype", None) for eqn in equations(jaxpr) for v in eqn.outvars if is_differentiable(v.aval)}
    return {d for d in found if d is not None and jnp.issubdtype(d, jnp.inexact)}


def silent(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """A program without its equations that return nothing, such as prints: a check evaluates it many times."""
    body, _ = open_and_closed(jaxpr)
    kept = [eqn for eqn in body.eqns if eqn.outvars]
    return jaxpr if len(kept) == len(body.eqns) else with_outputs(ClosedJaxpr(body.replace(eqns=kept), jaxpr.consts), body.outvars)


class Subject:
    """A function and its arguments: the names of the inputs, and its programs."""

    def __init__(self, fun: Callable[..., PyTree], args: tuple[PyTree, ...], kwargs: dict[str, PyTree]):
        self.name = name_of(fun)
        self.flat, tree, fixed = split_arguments(args, kwargs)
        self.inputs = [name for name, part in zip(_names(fun, args, kwargs), fixed, strict=True) if part is None]
        call = Function(fun).flat(tree, fixed)

        def run(*flat: jax.Array) -> list[jax.Array]:
            return as_arrays([x for x in tree_flatten(call(*flat))[0] if is_array_like(x)])

        self.run = run

    def own(self) -> Program:
        """The function in the dtypes of its arguments, traced anew."""
        return self._program(self.flat, False, False)

    def double(self) -> Program | None:
        """The function in double precision; None where its inputs are, or it has another idea of its dtypes."""
        narrow = [is_differentiable(typeof(x)) and not is_extended(x.dtype) and jnp.finfo(x.dtype).bits < 64 for x in self.flat]
        if not any(narrow):
            return None
        for promotes in (False, True):
            promotion = jax.numpy_dtype_promotion("standard") if promotes else contextlib.nullcontext()
            with contextlib.suppress(TypeError, ValueError, NotImplementedError), jax.enable_x64(True), promotion:
                flat = [_widened(x) if is_narrow else x for x, is_narrow in zip(self.flat, narrow, strict=True)]
                program = self._program(flat, True, promotes)
                return program if program.jaxpr is None or _calls_fit(program.jaxpr) else None
        return None

    def _program(self, flat: list[jax.Array], is_double: bool, promotes: bool) -> Program:
        active = tuple(i for i, x in enumerate(flat) if is_differentiable(typeof(x)) and not is_extended(x.dtype))
        avals: list[ShapedArray] = [typeof(x) for x in flat]
        try:
            jaxpr = stage(self.run, avals)
        except NEEDS_VALUES:
            self.run(*flat)  # an error of the function's own is raised here
            return Program(self.run, None, flat, active, is_double, promotes)
        jaxpr = silent(jaxpr)
        return Program(jaxpr_as_fun(jaxpr), jaxpr, flat, active, is_double, promotes)


def _calls_fit(jaxpr: ClosedJaxpr) -> bool:
    """Whether calls get operands of the dtypes that their programs were traced for: not where a function evaluates a stored program."""
    calls = [eqn for eqn in eqns_within(jaxpr) if eqn.primitive is jit_p]
    return all(getattr(x.aval, "dtype", None) == aval.dtype
               for eqn in calls for x, aval in zip(eqn.invars, eqn.params["jaxpr"].in_avals, strict=True))


def _widened(x: jax.Array) -> jax.Array:
    weak = bool(typeof(x).weak_type)
    dtype = jnp.complex128 if jnp.iscomplexobj(x) else jnp.float64
    return jnp.asarray(complex(x) if jnp.iscomplexobj(x) else float(x)) if weak and not x.shape else jnp.asarray(x, dtype)


def _names(fun: Callable[..., PyTree], args: tuple[PyTree, ...], kwargs: dict[str, PyTree]) -> list[str]:
    """``x['w']`` for each leaf of the arguments: the parameter's name and the path within the argument."""
    names: list[str] = []
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    for i in range(len(args)):
        p = parameters[i] if i < len(parameters) else None
        names.append(p.name if p is not None and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) else f"args[{i}]")
    found = []
    for path, _ in tree_leaves_with_path((args, kwargs)):
        is_positional = path[0].idx == 0
        start = names[path[1].idx] if is_positional else str(path[1].key)
        found.append(start + keystr(path[2:]))
    return found
