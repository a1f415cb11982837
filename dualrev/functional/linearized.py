"""What ``linearize`` returns: the derivative as a value, between pytrees; its multiples, sums, compositions and transposes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.tree_util import tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ArrayLike, DType, ShapedArray, is_differentiable
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree
from dualrev.calls.derived_programs import apart
from dualrev.functional import checks, coordinates, pickling
from dualrev.functional.coordinates import Vector
from dualrev.functional.operators import Concrete, Operator, check_scalar
from dualrev.functional.results import Pullback, Structure, push_flat, single
from dualrev.functional.watching import watched
from dualrev.linear.algebra import ComposedMap, ScaledMap, SettledMap, SumMap, TransposedMap, is_number
from dualrev.linear.maps import LinearMap
from dualrev.linear.residuals import Origins, Residuals, residuals_of
from dualrev.options.settings import using


class Linearized(Operator):
    """The derivative of a function at a point, as a linear map.

    ``J(*tangents)`` as in jax; ``J @ v`` and ``J.T @ u`` for one tangent (cotangent) with the structure of the inputs (outputs);
    ``J.shape`` is ``(number of outputs, number of inputs)`` in elements.
    """

    __slots__ = ("__weakref__", "is_checked", "origins", "structure", "tape")

    def __init__(self, tape: LinearMap, structure: Structure, origins: Origins | None = None):
        self.tape = tape
        self.structure = structure
        self.origins = origins
        self.is_checked = False

    def __call__(self, *tangents: PyTree) -> PyTree:
        return watched(f"push of {self.structure.name}", self._push, *tangents)

    def _push(self, *tangents: PyTree) -> PyTree:
        s = self.structure
        with errors.calling("linearize"), using(s.settings):
            flat = checks.check_moving(tangents, s.in_tree, s.in_avals, "tangent", "input")
            return tree_unflatten(s.out_tree, push_flat(self.tape, s, flat))

    def apply(self, value: PyTree) -> PyTree:
        return self(value) if single(self.structure.in_tree) is not None else self(*value)

    @property
    def T(self) -> Transposed:
        """The transpose, from cotangents of the outputs to cotangents of the inputs."""
        return Transposed(self)

    @property
    def shape(self) -> tuple[int, int]:
        return self.structure.shape

    def as_map(self) -> Linearized:
        return self

    def scaled(self, factor: ArrayLike) -> Linearized:
        return scale(factor, self)

    def plus(self, other: Operator) -> Operator:
        return add(self, other.as_map())

    def after(self, other: Operator) -> Operator:
        return compose(self, other.as_map())

    @property
    def _map(self) -> LinearMap:
        return self.tape

    def residuals(self) -> Residuals:
        """The arrays that the map keeps alive, each once: bytes, the operation that keeps it, the user's line.

        A list that prints as a table; its bytes sum to ``residual_bytes``.  Which arrays are inputs or outputs, and lines outside
        compiled functions, are not known of a map that has left ``jit``.
        """
        with apart():  # the lines of this function, not of one that shares its programs
            return residuals_of(self.tape, self.origins)

    def check_complex_linear(self, call: str) -> None:
        if not self.is_checked:
            coordinates.check_complex_linear(self.tape, self.structure, call)
            self.is_checked = True

    def dense(self, *, holomorphic: bool = False) -> jax.Array:
        if not holomorphic:
            self.check_complex_linear("dense")
        return coordinates.dense(self.tape, self.structure)

    def matvec(self, x: npt.ArrayLike) -> np.ndarray:
        return np.asarray(coordinates.push_vector(self.tape, self.structure, self._vector(x, 1, "matvec")))

    def rmatvec(self, x: npt.ArrayLike) -> np.ndarray:
        pulled: np.ndarray = np.conj(self.pull_vector(np.conj(self._vector(x, 0, "rmatvec"))))
        return pulled

    def pull_vector(self, x: npt.ArrayLike) -> np.ndarray:
        return np.asarray(coordinates.pull_vector(self.tape, self.structure, self._vector(x, 0, "matvec")))

    def _vector(self, x: npt.ArrayLike, axis: int, call: str) -> Vector:
        self.check_complex_linear(call)
        return coordinates.check_vector(x, self.shape[axis], call, self.structure)

    def __copy__(self) -> Linearized:
        return Linearized(self.tape, self.structure, self.origins)

    def __reduce__(self) -> pickling.Rebuilding:
        return pickling.rebuilt, (Linearized, *pickling.packed(self.tape, self.structure))


class Transposed(Operator):
    """The transpose of a :class:`Linearized` map: ``J.T @ u`` pulls a cotangent back."""

    __slots__ = ("__weakref__", "_linearized")

    def __init__(self, linearized: Linearized):
        self._linearized = linearized

    @property
    def T(self) -> Linearized:
        """The map that this is the transpose of."""
        return self._linearized

    def __call__(self, cotangent: PyTree) -> tuple[PyTree, ...]:
        """A tuple with a cotangent for each primal, as the function that ``vjp`` returns."""
        return Pullback(self.T.tape, self.T.structure)(cotangent)

    def apply(self, value: PyTree) -> PyTree:
        cts = self(value)
        return cts[0] if single(self.T.structure.in_tree) is not None else cts

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.T.shape
        return (n, m)

    def as_map(self) -> Linearized:
        s = self.T.structure
        argument = single(s.in_tree)
        places = tuple([i for i, a in enumerate(s.out_avals) if is_differentiable(a)])
        active = tuple([bool(flag) for flag in s.active])
        flat = TransposedMap(self.T.tape, active, places, len(s.out_avals), tuple([a.dtype for a in s.in_avals]))
        out_tree = s.in_tree if argument is None else argument
        in_tree = tree_structure((tree_unflatten(s.out_tree, [0] * s.out_tree.num_leaves),))
        structure = Structure(f"{s.name}, transposed", in_tree, s.out_avals, [is_differentiable(a) for a in s.out_avals], out_tree,
                              s.ct_avals, s.settings)
        return Linearized(flat, structure)

    def scaled(self, factor: ArrayLike) -> Transposed:
        return self.T.scaled(factor).T

    def plus(self, other: Operator) -> Operator:
        return add(self.T, other.T).T if isinstance(other, Transposed) else add(self.as_map(), other.as_map())

    def after(self, other: Operator) -> Operator:
        return compose(other.T, self.T).T if isinstance(other, Transposed) else compose(self.as_map(), other.as_map())

    @property
    def _map(self) -> LinearMap:
        return self.T.tape

    def residuals(self) -> Residuals:
        """What is stored, array by array (see :meth:`Linearized.residuals`)."""
        return self.T.residuals()

    def dense(self, *, holomorphic: bool = False) -> jax.Array:
        return self.T.dense(holomorphic=holomorphic).T

    def matvec(self, x: npt.ArrayLike) -> np.ndarray:
        return self.T.pull_vector(x)

    def rmatvec(self, x: npt.ArrayLike) -> np.ndarray:
        pushed: np.ndarray = np.conj(self.T.matvec(np.conj(x)))
        return pushed

    def __copy__(self) -> Transposed:
        return Transposed(self.T)

    def __reduce__(self) -> pickling.Rebuilding:
        return Transposed, (self.T,)


# ------------------------------------------------------------------------------------------------------------------- algebra


def scale(factor: ArrayLike, a: Linearized) -> Linearized:
    check_scalar(factor, a)
    s = a.structure
    outs = coordinates.differentiable(s.out_avals)
    if jnp.iscomplexobj(factor) and not all(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in outs):
        raise TypeError(f"The linear map {s} has real outputs, and cannot be multiplied by a complex scalar; got {factor}")
    factor = factor if is_number(factor) or isinstance(factor, (jax.Array, Tracer)) else jnp.asarray(factor)
    name = f"{factor} * {s.name}" if is_number(factor) else f"scalar * {s.name}"
    if is_number(factor) and factor == -1:
        name = f"-({s.name})"
    return Linearized(ScaledMap(factor, a.tape), _like(s, name), a.origins)


def add(a: Concrete, b: Concrete) -> Linearized:
    s, t = a.structure, b.structure
    for what, same in (("inputs", s.in_tree == t.in_tree and _types(s.in_avals) == _types(t.in_avals)),
                       ("outputs", s.out_tree == t.out_tree and _types(s.out_avals) == _types(t.out_avals))):
        if not same:
            raise TypeError(f"Linear maps that are added have the same {what}, in structure, shapes and dtypes; got {s} and {t}")
    if [bool(flag) for flag in s.active] != [bool(flag) for flag in t.active]:
        raise TypeError(f"Linear maps that are added depend on the same inputs; of {s} and {t} one was made with another in_nzs")
    active = [x if x == y else True for x, y in zip(s.active, t.active, strict=True)]
    out_avals = [x if x == y else x.update(weak_type=False) for x, y in zip(s.out_avals, t.out_avals, strict=True)]
    structure = Structure(f"{s.name} + {t.name}", s.in_tree, s.in_avals, active, s.out_tree, out_avals, s.settings)
    dtypes = tuple([aval.dtype for aval, moves in zip(structure.ct_avals, active, strict=True) if moves])
    return Linearized(SumMap([a.tape, _settled(b, structure)], dtypes), structure)


def compose(a: Concrete, b: Concrete) -> Linearized:
    s, t = a.structure, b.structure
    argument = single(s.in_tree)
    if (s.in_tree if argument is None else argument) != t.out_tree or _types(s.in_avals) != _types(t.out_avals):
        raise TypeError(f"In a composition J @ K, what K returns is what J takes, in structure, shapes and dtypes; J takes {s.inputs} "
                        f"({s}), and K returns {t.outputs} ({t})")
    places = tuple([i for i, moves in enumerate(s.active) if moves])
    flat = ComposedMap(a.tape, _settled(b, s), places, tuple([aval.dtype for aval in t.out_avals]))
    name = f"{_grouped(s.name)} @ {_grouped(t.name)}"
    return Linearized(flat, Structure(name, t.in_tree, t.in_avals, t.active, s.out_tree, s.out_avals, s.settings))


def _settled(part: Concrete, whole: Structure) -> LinearMap:
    """The flat map of a part, with its own settings where they differ from those of the whole."""
    own = part.structure.settings
    return part.tape if own == whole.settings else SettledMap(part.tape, own)


def _like(s: Structure, name: str) -> Structure:
    return Structure(name, s.in_tree, s.in_avals, s.active, s.out_tree, s.out_avals, s.settings)


def _grouped(name: str) -> str:
    return f"({name})" if " " in name else name


def _types(avals: Sequence[ShapedArray]) -> list[tuple[tuple[int, ...], DType]]:
    return [(a.shape, a.dtype) for a in avals]


jax.tree_util.register_pytree_node(Linearized, lambda j: ((j.tape,), j.structure), lambda s, m: Linearized(m[0], s))
jax.tree_util.register_pytree_node(Transposed, lambda t: ((t.T,), None), lambda _, j: Transposed(j[0]))
