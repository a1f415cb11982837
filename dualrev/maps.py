"""What ``linearize`` returns: the derivative as a value, between pytrees.

It is applied, transposed, multiplied, added and composed; none of this evaluates anything before the result is applied.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from dualrev import checks, coordinates, errors, pickling
from dualrev._jax import Tracer, is_array_like, is_differentiable, typeof
from dualrev.derivatives import Pullback, Structure, push_flat, single
from dualrev.linear_algebra import ComposedMap, ScaledMap, SettledMap, SumMap, TransposedMap, is_number
from dualrev.linear_maps import LinearMap, Tape
from dualrev.residuals import Origins, Residuals, nbytes_of, residuals_of
from dualrev.settings import using


class Operator(ABC):
    r"""A linear map :math:`A` between pytrees, and what can be done with it.

    ``A @ v`` applies it to one value with the structure of its input; ``A @ B`` of two maps is their composition, :math:`A B`.  ``c * A``,
    ``A / c``, ``-A``, ``A + B`` and ``A - B`` are maps too, for a scalar ``c``: a number, a scalar array, a traced value.  They are
    evaluated when they are applied, are pytrees, and may leave ``jit``.  ``A.dense()`` and ``numpy.asarray(A)`` are the matrix.  A matrix
    of several vectors is no value of the input: ``jax.vmap`` of the map applies it to many, or ``A.matmat`` does, in flat coordinates.
    """

    __slots__ = ()

    # NumPy leaves ``array * A`` to the map, and does not make a matrix of it.
    __array_ufunc__ = None

    @property
    @abstractmethod
    def T(self) -> Operator: ...

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]: ...

    @abstractmethod
    def as_map(self) -> Linearized:
        """The same map, from tangents of its input to those of its output."""

    @abstractmethod
    def apply(self, value: Any) -> Any: ...

    # ------------------------------------------------------------------------------------------------------------- algebra

    def __matmul__(self, other: Any) -> Any:
        return compose(self, other) if isinstance(other, Operator) else self.apply(other)

    def __mul__(self, factor: Any) -> Operator:
        return NotImplemented if isinstance(factor, Operator) else scale(factor, self)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Operator:
        if isinstance(divisor, Operator):
            return NotImplemented
        check_scalar(divisor, self)
        return scale(1 / divisor, self)

    def __neg__(self) -> Operator:
        return scale(-1, self)

    def __pos__(self) -> Operator:
        return self

    def __add__(self, other: Any) -> Operator:
        if isinstance(other, Operator):
            return add(self, other)
        return self if is_number(other) and other == 0 else NotImplemented  # where sum() begins

    __radd__ = __add__

    def __sub__(self, other: Any) -> Operator:
        return add(self, -other) if isinstance(other, Operator) else NotImplemented

    def __bool__(self) -> bool:
        raise TypeError(f"The truth value of a linear map is not defined ({self.as_map().structure}). Compare the matrix, A.dense(), or ask "
                        "whether the variable is None.")

    # ------------------------------------------------------------------------------------------------------ flat coordinates

    @property
    def dtype(self) -> Any:
        """The dtype of the matrix: one that holds all inputs and outputs."""
        return coordinates.dtype_of(self.as_map().structure)

    @abstractmethod
    def dense(self, *, holomorphic: bool = False) -> jax.Array:
        r"""The matrix :math:`A`, of shape ``A.shape``: entries of the leaves in the order of the trees, one push for each input.

        Args:
          holomorphic: a promise that a map with complex inputs is linear over the complex numbers; inside a traced program it must be
            given, elsewhere it saves a check.

        Raises:
          ValueError: the map has complex inputs and is linear over the real numbers only.
        """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The matrix of a linear map is computed when it is asked for: numpy.asarray(A, copy=False) cannot be")
        return np.array(self.dense(), dtype)

    @abstractmethod
    def matvec(self, x: Any) -> np.ndarray:
        r""":math:`A x` for a vector of numbers, in flat coordinates, as SciPy's linear operators have it."""

    @abstractmethod
    def rmatvec(self, x: Any) -> np.ndarray:
        r""":math:`A^{\mathsf H} x`: SciPy's convention is the conjugate transpose, which ``A.T`` is not where entries are complex."""

    def matmat(self, X: Any) -> np.ndarray:
        r""":math:`A X` for a matrix whose columns are vectors in flat coordinates."""
        return _columns(self.matvec, X, self.shape)

    def rmatmat(self, X: Any) -> np.ndarray:
        r""":math:`A^{\mathsf H} X`."""
        return _columns(self.rmatvec, X, self.shape[::-1])

    def to_lineax(self, tags: Any = ()) -> Any:
        """The map as a ``lineax`` operator, for its solvers; ``tags`` as those of ``lineax.FunctionLinearOperator``.

        Its products are those of this map, and so is its transpose: lineax has nothing to transpose.

        Raises:
          ImportError: lineax is not installed.
          ValueError: the map has complex inputs and is linear over the real numbers only.
        """
        from dualrev.to_lineax import operator  # the library is imported by those who ask for it

        m = self.as_map()
        coordinates.check_complex_linear(m.tape, m.structure, "to_lineax")
        return operator(self, m.structure, tags)

    # ----------------------------------------------------------------------------------------------------------------- copies

    @abstractmethod
    def __copy__(self) -> Any: ...

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        leaves, tree = jax.tree_util.tree_flatten(self)
        copied: dict[int, Any] = {}
        for x in leaves:
            if id(x) not in copied:
                copied[id(x)] = jnp.array(x) if isinstance(x, jax.Array) else np.array(x) if isinstance(x, np.ndarray) else x
        return tree_unflatten(tree, [copied[id(x)] for x in leaves])

    # ------------------------------------------------------------------------------------------------------------------ words

    @property
    def n_ops(self) -> int:
        """The number of operations on the tape, those inside compiled functions and loop bodies counted once each."""
        return sum(count_ops(self._map).values())

    @property
    def residual_bytes(self) -> int:
        """The bytes that the map keeps alive: each array once, scalars of the program not counted."""
        return sum(nbytes_of(x) for x in {id(x): x for x in tree_leaves(self._map)}.values())

    @property
    @abstractmethod
    def _map(self) -> LinearMap: ...

    @abstractmethod
    def residuals(self) -> Residuals: ...

    def __repr__(self) -> str:
        return "\n".join([f"{self._title()}, {self._figures()}", *[f"  {line}" for line in _table(self._map)]])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{count}</td></tr>" for name, count in count_ops(self._map).most_common())
        return (f"<div><b>{html.escape(self._title())}</b><br>{html.escape(self._figures())}"
                f"<table><thead><tr><th>operation</th><th>number</th></tr></thead><tbody>{rows}</tbody></table></div>")

    def _title(self) -> str:
        return f"Linear map of {self.as_map().structure}"

    def _figures(self) -> str:
        m, n = self.shape
        return f"{m} x {n}, {self.n_ops} ops, {self.residual_bytes:,} residual bytes"


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

    def __call__(self, *tangents: Any) -> Any:
        s = self.structure
        with errors.calling("linearize"), using(s.settings):
            flat = checks.check_moving(tangents, s.in_tree, s.in_avals, "tangent", "input")
            return tree_unflatten(s.out_tree, push_flat(self.tape, s, flat))

    def apply(self, value: Any) -> Any:
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

    @property
    def _map(self) -> LinearMap:
        return self.tape

    def residuals(self) -> Residuals:
        """The arrays that the map keeps alive, each once: bytes, the operation that keeps it, the user's line.

        A list that prints as a table; its bytes sum to ``residual_bytes``.  Which arrays are inputs or outputs, and lines outside
        compiled functions, are not known of a map that has left ``jit``.
        """
        return residuals_of(self.tape, self.origins)

    def check_complex_linear(self, call: str) -> None:
        if not self.is_checked:
            coordinates.check_complex_linear(self.tape, self.structure, call)
            self.is_checked = True

    def dense(self, *, holomorphic: bool = False) -> jax.Array:
        if not holomorphic:
            self.check_complex_linear("dense")
        return coordinates.dense(self.tape, self.structure)

    def matvec(self, x: Any) -> np.ndarray:
        return np.asarray(coordinates.push_vector(self.tape, self.structure, self._vector(x, 1, "matvec")))

    def rmatvec(self, x: Any) -> np.ndarray:
        return np.conj(self.pull_vector(np.conj(self._vector(x, 0, "rmatvec"))))

    def pull_vector(self, x: Any) -> np.ndarray:
        return np.asarray(coordinates.pull_vector(self.tape, self.structure, self._vector(x, 0, "matvec")))

    def _vector(self, x: Any, axis: int, call: str) -> Any:
        self.check_complex_linear(call)
        return coordinates.check_vector(x, self.shape[axis], call, self.structure)

    def __copy__(self) -> Linearized:
        return Linearized(self.tape, self.structure, self.origins)

    def __reduce__(self) -> Any:
        return pickling.rebuilt, (Linearized, *pickling.packed(self.tape, self.structure))


class Transposed(Operator):
    """The transpose of a :class:`Linearized` map: ``J.T @ u`` pulls a cotangent back."""

    __slots__ = ("_linearized", "__weakref__")

    def __init__(self, linearized: Linearized):
        self._linearized = linearized

    @property
    def T(self) -> Linearized:
        """The map that this is the transpose of."""
        return self._linearized

    def __call__(self, cotangent: Any) -> Any:
        """A tuple with a cotangent for each primal, as the function that ``vjp`` returns."""
        return Pullback(self.T.tape, self.T.structure)(cotangent)

    def apply(self, value: Any) -> Any:
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

    @property
    def _map(self) -> LinearMap:
        return self.T.tape

    def residuals(self) -> Residuals:
        """What is stored, array by array (see :meth:`Linearized.residuals`)."""
        return self.T.residuals()

    def dense(self, *, holomorphic: bool = False) -> jax.Array:
        return self.T.dense(holomorphic=holomorphic).T

    def matvec(self, x: Any) -> np.ndarray:
        return self.T.pull_vector(x)

    def rmatvec(self, x: Any) -> np.ndarray:
        return np.conj(self.T.matvec(np.conj(x)))

    def __copy__(self) -> Transposed:
        return Transposed(self.T)

    def __reduce__(self) -> Any:
        return Transposed, (self.T,)


# ------------------------------------------------------------------------------------------------------------------- algebra


def check_scalar(factor: Any, operator: Operator) -> None:
    if not is_array_like(factor) or typeof(factor).shape != ():
        what = f"{type(factor).__name__} of shape {typeof(factor).shape}" if is_array_like(factor) else f"{factor!r}"
        raise TypeError(f"A linear map is multiplied and divided by scalars; got {what}. (J @ v applies the map {operator.as_map().structure}, "
                        "and J @ K composes two.)")


def scale(factor: Any, operator: Operator) -> Operator:
    if isinstance(operator, Transposed):
        return scale(factor, operator.T).T
    assert isinstance(operator, Linearized)
    check_scalar(factor, operator)
    s = operator.structure
    outs = coordinates.differentiable(s.out_avals)
    if jnp.iscomplexobj(factor) and not all(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in outs):
        raise TypeError(f"The linear map {s} has real outputs, and cannot be multiplied by a complex scalar; got {factor}")
    factor = factor if is_number(factor) or isinstance(factor, (jax.Array, Tracer)) else jnp.asarray(factor)
    name = f"{factor} * {s.name}" if is_number(factor) else f"scalar * {s.name}"
    if is_number(factor) and factor == -1:
        name = f"-({s.name})"
    return Linearized(ScaledMap(factor, operator.tape), _like(s, name), operator.origins)


def add(one: Operator, two: Operator) -> Operator:
    if isinstance(one, Transposed) and isinstance(two, Transposed):
        return add(one.T, two.T).T
    a, b = one.as_map(), two.as_map()
    s, t = a.structure, b.structure
    for what, same in (("inputs", s.in_tree == t.in_tree and _types(s.in_avals) == _types(t.in_avals)),
                       ("outputs", s.out_tree == t.out_tree and _types(s.out_avals) == _types(t.out_avals))):
        if not same:
            raise TypeError(f"Linear maps that are added have the same {what}, in structure, shapes and dtypes; got {s} and {t}")
    active = [x if x == y else True for x, y in zip(s.active, t.active, strict=True)]
    out_avals = [x if x == y else x.update(weak_type=False) for x, y in zip(s.out_avals, t.out_avals, strict=True)]
    structure = Structure(f"{s.name} + {t.name}", s.in_tree, s.in_avals, active, s.out_tree, out_avals, s.settings)
    dtypes = tuple([aval.dtype for aval, moves in zip(structure.ct_avals, active, strict=True) if moves])
    return Linearized(SumMap([a.tape, _settled(b, structure)], dtypes), structure)


def compose(outer: Operator, inner: Operator) -> Operator:
    if isinstance(outer, Transposed) and isinstance(inner, Transposed):
        return compose(inner.T, outer.T).T
    a, b = outer.as_map(), inner.as_map()
    s, t = a.structure, b.structure
    argument = single(s.in_tree)
    if (s.in_tree if argument is None else argument) != t.out_tree or _types(s.in_avals) != _types(t.out_avals):
        raise TypeError(f"In a composition J @ K, what K returns is what J takes, in structure, shapes and dtypes; J takes {s.inputs} "
                        f"({s}), and K returns {t.outputs} ({t})")
    places = tuple([i for i, moves in enumerate(s.active) if moves])
    flat = ComposedMap(a.tape, _settled(b, s), places, tuple([aval.dtype for aval in t.out_avals]))
    name = f"{_grouped(s.name)} @ {_grouped(t.name)}"
    return Linearized(flat, Structure(name, t.in_tree, t.in_avals, t.active, s.out_tree, s.out_avals, s.settings))


def _settled(part: Linearized, whole: Structure) -> LinearMap:
    """The flat map of a part, under its own settings where they are not those of the whole."""
    own = part.structure.settings
    return part.tape if own == whole.settings else SettledMap(part.tape, own)


def _like(s: Structure, name: str) -> Structure:
    return Structure(name, s.in_tree, s.in_avals, s.active, s.out_tree, s.out_avals, s.settings)


def _grouped(name: str) -> str:
    return f"({name})" if " " in name else name


def _types(avals: Sequence[Any]) -> list[Any]:
    return [(a.shape, a.dtype) for a in avals]


def _columns(product: Any, X: Any, shape: tuple[int, int]) -> np.ndarray:
    X = np.asarray(X)
    m, n = shape
    if X.ndim != 2 or X.shape[0] != n:
        raise ValueError(f"matmat and rmatmat take a matrix with {n} rows; got shape {X.shape}")
    return np.stack([product(x) for x in X.T], 1) if X.shape[1] else np.zeros((m, 0), X.dtype)


def count_ops(linear_map: Any) -> Counter[str]:
    """How often each operation stands on a tape, looking into compiled functions and loop bodies."""
    counts: Counter[str] = Counter()
    waiting = [linear_map]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Tape):
            waiting.extend(entry[0] for entry in current.entries)
        elif (inner := getattr(current, "inner_maps", None)) is not None:
            waiting.extend(inner())
        else:
            counts[current.name] += 1
    return counts


def _table(linear_map: LinearMap) -> list[str]:
    counts = count_ops(linear_map)
    width = max((len(name) for name in counts), default=0)
    return [f"{name:<{width}}  {count:>6}" for name, count in counts.most_common()]


jax.tree_util.register_pytree_node(Linearized, lambda j: ((j.tape,), j.structure), lambda s, m: Linearized(m[0], s))
jax.tree_util.register_pytree_node(Transposed, lambda t: ((t.T,), None), lambda _, j: Transposed(j[0]))
