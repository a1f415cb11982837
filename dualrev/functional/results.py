"""What ``vjp`` and ``linear_transpose`` return: functions that pull, between pytrees.

They hold a flat :class:`~dualrev.linear.maps.LinearMap` and the structures around it, are pytrees whose leaves are residuals, and
so may leave ``jit``.  What ``linearize`` returns stands in :mod:`dualrev.functional.linearized`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import jax
from jax import lax
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, convert_to, is_differentiable, typeof
from dualrev._jax.sharding import as_cotangent, explicit_sharding, in_mesh_context, resharded, vary_as
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.calls.derived_programs import apart
from dualrev.functional import checks, repeated
from dualrev.functional.gradient_references import pull_into
from dualrev.functional.watching import watched
from dualrev.linear import zeros
from dualrev.linear.maps import LinearMap, Tangent
from dualrev.linear.residuals import Origins, Residuals, residuals_of
from dualrev.options.settings import Active, Settings, current, using, widened
from dualrev.programs.functions import as_arrays


class Structure:
    """Pytree structures and abstract values of a function's inputs and outputs, and which inputs are active."""

    __slots__ = ("active", "ct_avals", "in_avals", "in_tree", "name", "out_avals", "out_tree", "settings")

    def __init__(self, name: str, in_tree: PyTreeDef, in_avals: Sequence[ShapedArray], active: Sequence[Active],
                 out_tree: PyTreeDef, out_avals: Sequence[ShapedArray], settings: Settings | None = None):
        self.name = name
        self.in_tree = in_tree
        self.in_avals = tuple(in_avals)
        self.active = tuple(active)
        self.out_tree = out_tree
        self.out_avals = tuple(out_avals)
        #: The inputs in the dtypes and shardings of their cotangents.
        self.ct_avals: tuple[ShapedArray, ...] = tuple([
            widened(as_cotangent(a), flag) for a, flag in zip(in_avals, active, strict=True)])
        self.settings = current.get() if settings is None else settings

    def _key(self) -> tuple[Hashable, ...]:
        return (self.name, self.in_tree, self.in_avals, self.active, self.out_tree, self.out_avals, self.settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def inputs(self) -> str:
        """The type of a map's input, in readable form: of one argument as it is, of several in a tuple."""
        argument = single(self.in_tree)
        return checks.spelled(self.in_tree if argument is None else argument, self.in_avals)

    @property
    def outputs(self) -> str:
        return checks.spelled(self.out_tree, self.out_avals)

    def __repr__(self) -> str:
        return f"{self.name}: {self.inputs} -> {self.outputs}"

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of elements; symbolic expressions where shapes are symbolic."""
        return (sum(_size(a) for a in self.out_avals), sum(_size(a) for a in self.in_avals))


def single(in_tree: PyTreeDef) -> PyTreeDef | None:
    """The structure of the one positional argument, where there is only one: its tangent need not be wrapped in a tuple."""
    children = in_tree.children()
    return children[0] if len(children) == 1 else None


def _size(aval: ShapedArray) -> int:
    size: int = aval.size if is_differentiable(aval) else 0
    return size


def push_flat(linear_map: LinearMap, s: Structure, tangents: Sequence[Tangent]) -> list[jax.Array]:
    """Flat tangents of all inputs to flat tangents of all outputs, with arrays for zeros."""
    moving = [None if t is None else zeros.drop_float0(vary_as(t, a))
              for t, a, moves in zip(tangents, s.in_avals, s.active, strict=True) if moves]
    results = repeated.apply("push", linear_map, tuple(moving))
    return [zeros.fit(t, aval) for t, aval in zip(results, s.out_avals, strict=True)]


def pull_flat(linear_map: LinearMap, s: Structure, cotangents: Sequence[Tangent]) -> list[jax.Array]:
    """Flat cotangents of all outputs to flat cotangents of all inputs, with arrays for zeros."""
    given = [vary_as(ct, aval) if ct is not None and is_differentiable(aval) else None
             for ct, aval in zip(cotangents, s.out_avals, strict=True)]
    results = iter(repeated.apply("pull", linear_map, tuple(given)))
    cts = [next(results) if moves else None for moves in s.active]
    fitted = [zeros.fit(ct, aval) for ct, aval in zip(cts, s.ct_avals, strict=True)]
    if not in_mesh_context():
        return fitted
    return [resharded(ct, explicit_sharding(aval)) for ct, aval in zip(fitted, s.ct_avals, strict=True)]  # that of the input


class Pullback:
    """The function that ``vjp`` returns: cotangents of the outputs to a tuple of cotangents of the primals."""

    __slots__ = ("__weakref__", "linear_map", "origins", "structure")

    def __init__(self, linear_map: LinearMap, structure: Structure, origins: Origins | None = None):
        self.linear_map = linear_map
        self.structure = structure
        self.origins = origins

    def residuals(self) -> Residuals:
        """What is stored, array by array (see :meth:`Linearized.residuals`)."""
        with apart():  # the lines of this function, not of one that shares its programs
            return residuals_of(self.linear_map, self.origins)

    def with_refs(self, *wanted: PyTree) -> Callable[[PyTree], tuple[PyTree, ...]]:
        """The pull that adds cotangents to mutable references in place of returning them.

        Args:
          wanted: one for each primal, of its structure, with an entry for each of its arrays: a mutable reference (``jax.new_ref``),
            which the cotangent is added to; ``jax.ad.GradValue()``, which returns the cotangent; or ``jax.ad.DontWant()``.

        Returns:
          A function of the cotangents of the outputs; where a cotangent is not returned stands ``jax.ad.GradRef()`` or
          ``jax.ad.DidntWant()``.

        Raises:
          ValueError: for another structure, or a reference of another shape or dtype.
          TypeError: for an entry that is none of these.

        >>> import jax, jax.numpy as jnp, dualrev as dr
        >>> total = jax.new_ref(jnp.zeros(2))
        >>> for scale in (1., 2.):
        ...     y, pull = dr.vjp(lambda w: jnp.sum(scale * w**2), jnp.array([1., 3.]))
        ...     _ = pull.with_refs(total)(1.)
        >>> total[...].tolist()
        [6.0, 18.0]
        """
        return pull_into(self, wanted)

    def __call__(self, *args: PyTree) -> tuple[PyTree, ...]:
        return watched(f"pull of {self.structure.name}", self._pull, *args)

    def _pull(self, *args: PyTree) -> tuple[PyTree, ...]:
        s = self.structure
        with errors.calling("vjp"), using(s.settings):
            if len(args) != 1:
                raise TypeError(
                    f"The function returned by `vjp` applied to {s.name} was called with {len(args)} arguments, but functions "
                    "returned by `vjp` must be called with a single argument corresponding to the single value returned by "
                    "the function being differentiated (even if that returned value is a tuple or other container)."
                )
            cts = checks.check_moving(args[0], s.out_tree, s.out_avals, "cotangent", "output")
            pulled: tuple[PyTree, ...] = tree_unflatten(s.in_tree, pull_flat(self.linear_map, s, cts))
            return pulled

    def __repr__(self) -> str:
        m, n = self.structure.shape
        return f"<vjp of {self.structure.name}: {m} output(s) to {n} input(s)>"


class LinearTranspose:
    """The function that ``linear_transpose`` returns: a cotangent of the output to a tuple with one for each input."""

    __slots__ = ("__weakref__", "linear_map", "structure")

    def __init__(self, linear_map: LinearMap, structure: Structure):
        self.linear_map = linear_map
        self.structure = structure

    def __call__(self, cotangent: PyTree) -> tuple[PyTree, ...]:
        s = self.structure
        with errors.calling("linear_transpose"), using(s.settings):
            given, tree = tree_flatten(cotangent)
            if tree != s.out_tree:
                raise TypeError(f"cotangent tree does not match function output, expected {s.out_tree} but got {tree}")
            if any(typeof(ct).shape != a.shape or typeof(ct).dtype != a.dtype for ct, a in zip(given, s.out_avals, strict=True)):
                raise TypeError(f"cotangent type does not match function output, expected {s.out_avals} but got {given}")
            cts = self.linear_map.pull(*as_arrays(given))
            pulled: tuple[PyTree, ...] = tree_unflatten(s.in_tree, [convert_to(lax.full(a.shape, 0, a.dtype) if ct is None else ct, a)
                                                                    for ct, a in zip(cts, s.in_avals, strict=True)])
            return pulled


jax.tree_util.register_pytree_node(Pullback, lambda p: ((p.linear_map,), p.structure), lambda s, m: Pullback(m[0], s))
jax.tree_util.register_pytree_node(
    LinearTranspose, lambda t: ((t.linear_map,), t.structure), lambda s, m: LinearTranspose(m[0], s)
)
