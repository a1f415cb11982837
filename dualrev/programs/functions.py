"""Functions of pytrees as traced programs, with what they close over among the operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax.avals import ArrayLike, ShapedArray, is_array_like
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, hoisted, is_literal, jaxpr_as_fun, stage
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree, PyTreeDef

#: For each leaf of a call's arguments: None where it is an array, else the leaf.
Fixed: TypeAlias = tuple[tuple[PyTree] | None, ...]

#: What makes the results of a program those of the function that it was traced from.
Finish: TypeAlias = Callable[[Sequence[jax.Array]], PyTree]


def as_arrays(flat: Sequence[object]) -> list[jax.Array]:
    """Values as jax arrays.  Python scalars stay weakly typed; objects that are no arrays stay as they are."""
    return [x if isinstance(x, (jax.Array, Tracer)) else jnp.asarray(x) if _is_host(x) else x for x in flat]  # type: ignore[misc]


def _is_host(x: object) -> TypeGuard[ArrayLike]:
    return isinstance(x, (int, float, complex, np.generic)) or (isinstance(x, np.ndarray) and x.dtype.kind in "biufc")


class Function:
    """A function, and one flat function for each structure of its arguments, so that ``jit`` recognizes it in later calls."""

    def __init__(self, fun: Callable[..., PyTree]):
        self.fun = fun
        self._flat: dict[tuple[PyTreeDef, Fixed], Callable[..., PyTree]] = {}

    def flat(self, tree: PyTreeDef, fixed: Fixed) -> Callable[..., PyTree]:
        """The function of the arrays among its arguments ``(args, kwargs)``; in ``fixed`` stand the leaves that are none."""

        fun = self.fun

        def on_arrays(*arrays: jax.Array) -> PyTree:
            values = iter(arrays)
            args, kwargs = tree_unflatten(tree, [next(values) if x is None else x[0] for x in fixed])
            return fun(*args, **kwargs)

        return self._flat.setdefault((tree, fixed), on_arrays)


def split_arguments(args: tuple[PyTree, ...], kwargs: dict[str, PyTree]) -> tuple[list[jax.Array], PyTreeDef, Fixed]:
    """``(arrays, tree, fixed)`` of the arguments of a call."""
    leaves, tree = tree_flatten((args, kwargs))
    fixed = tuple([None if is_array_like(x) else (x,) for x in leaves])
    return as_arrays([x for x, f in zip(leaves, fixed, strict=True) if f is None]), tree, fixed


class Traced:
    """A flat call as a program, and what the function closes over.

    It is traced by ``jit``, which caches the trace and knows the settings of jax that it was made under.
    """

    def __init__(self, fun: Callable[..., PyTree], avals: Sequence[ShapedArray]):
        jitted = jax.jit(fun)

        def flat_result(*flat: jax.Array) -> list[jax.Array]:
            outs, self.out_tree = tree_flatten(jitted(*flat))
            return outs

        #: The program, which takes what the function closes over before its arguments.
        self.jaxpr, self.consts = hoisted(stage(flat_result, avals))
        self.n_consts = len(self.consts)
        self.out_avals: list[ShapedArray] = list(self.jaxpr.out_avals)

    def take_consts(self) -> list[jax.Array]:
        """The values that the function closes over.  They are dropped here, so that a cached program keeps no values of a trace."""
        consts, self.consts = self.consts, []
        return consts

    def run(self, consts: Sequence[jax.Array], flat: Sequence[jax.Array]) -> list[jax.Array]:
        return list(jaxpr_as_fun(self.jaxpr)(*consts, *flat))

    def operation(self, flat: Sequence[jax.Array]) -> tuple[ClosedJaxpr, list[jax.Array], Finish]:
        """``(jaxpr, operands, finish)``: a program without constants, and what makes its results those of the function.

        The program is the same object in each call of the same function.
        """
        body, operands = self.jaxpr.jaxpr, [*self.consts, *flat]
        if len(body.eqns) != 1:  # with jax.disable_jit there is no call to find
            return self.jaxpr, operands, lambda results: tree_unflatten(self.out_tree, results)
        env = dict(zip(body.invars, operands, strict=True))

        def value(atom: Atom) -> jax.Array:
            found: jax.Array = atom.val if is_literal(atom) else env[atom]
            return found

        (eqn,) = body.eqns

        def finish(results: Sequence[jax.Array]) -> PyTree:
            env.update(zip(eqn.outvars, results, strict=True))
            return tree_unflatten(self.out_tree, [value(atom) for atom in body.outvars])

        return eqn.params["jaxpr"], [value(atom) for atom in eqn.invars], finish
