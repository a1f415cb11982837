"""What can be done with a linear map between pytrees: products, sums, the matrix, and what NumPy, SciPy and lineax ask for."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.tree_util import tree_leaves, tree_unflatten

from dualrev._jax.avals import ArrayLike, DType, is_array_like, typeof
from dualrev._jax.trees import PyTree
from dualrev.functional import coordinates, lineax_operator
from dualrev.functional.results import Structure
from dualrev.linear.algebra import is_number
from dualrev.linear.maps import LinearMap
from dualrev.linear.residuals import Origins, Residuals, nbytes_of

if TYPE_CHECKING:
    import lineax


#: What notebooks show of a linear map beside its text, as HTML: the folder that draws adds itself, which stands above this one.
PICTURES: list[Callable[[Operator], str]] = []


class Concrete(Protocol):
    """The form that every operator can be brought to: a flat map, and the structures around it."""

    tape: LinearMap
    structure: Structure
    origins: Origins | None

    def check_complex_linear(self, call: str) -> None: ...


class Operator(ABC):
    r"""A linear map :math:`A` between pytrees, and what can be done with it.

    ``A @ v`` applies it to one value with the structure of its input; ``A @ B`` of two maps is their composition, :math:`A B`.
    ``c * A``, ``A / c``, ``-A``, ``A + B`` and ``A - B`` are maps too, for a scalar ``c``: a number, a scalar array, a traced value.
    They are evaluated when applied, are pytrees, and may leave ``jit``.  ``A.dense()`` and ``numpy.asarray(A)`` are its matrix.
    A matrix of several vectors is not a value of the input, and ``A @ X`` an error: ``jax.vmap(lambda x: A @ x, 1, 1)(X)`` applies the
    map to each column, and so does ``A.matmat(X)`` in flat coordinates.
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
    def as_map(self) -> Concrete:
        """The same map as a :class:`~dualrev.functional.linearized.Linearized`, from values of its input to those of its output."""

    @abstractmethod
    def apply(self, value: PyTree) -> PyTree: ...

    @abstractmethod
    def scaled(self, factor: ArrayLike) -> Operator: ...

    @abstractmethod
    def plus(self, other: Operator) -> Operator: ...

    @abstractmethod
    def after(self, other: Operator) -> Operator: ...

    # ------------------------------------------------------------------------------------------------------------- algebra

    @overload
    def __matmul__(self, other: Operator) -> Operator: ...

    @overload
    def __matmul__(self, other: PyTree) -> PyTree: ...

    def __matmul__(self, other: PyTree) -> PyTree:
        return self.after(other) if isinstance(other, Operator) else self.apply(other)

    def __mul__(self, factor: ArrayLike) -> Operator:
        return NotImplemented if isinstance(factor, Operator) else self.scaled(factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: ArrayLike) -> Operator:
        if isinstance(divisor, Operator):
            return NotImplemented
        check_scalar(divisor, self)
        return self.scaled(1 / divisor)

    def __neg__(self) -> Operator:
        return self.scaled(-1)

    def __pos__(self) -> Operator:
        return self

    def __add__(self, other: Operator | float) -> Operator:
        if isinstance(other, Operator):
            return self.plus(other)
        return self if is_number(other) and other == 0 else NotImplemented  # where sum() begins

    __radd__ = __add__

    def __sub__(self, other: Operator) -> Operator:
        return self.plus(-other) if isinstance(other, Operator) else NotImplemented

    def __bool__(self) -> bool:
        raise TypeError(f"The truth value of a linear map is not defined ({self.as_map().structure}). Compare the matrix, A.dense(), "
                        "or ask whether the variable is None.")

    # ------------------------------------------------------------------------------------------------------ flat coordinates

    @property
    def dtype(self) -> DType:
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

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The matrix of a linear map is computed when it is asked for: numpy.asarray(A, copy=False) cannot be")
        return np.array(self.dense(), dtype)

    @abstractmethod
    def matvec(self, x: npt.ArrayLike) -> np.ndarray:
        r""":math:`A x` for a vector of numbers, in flat coordinates, as SciPy's linear operators have it."""

    @abstractmethod
    def rmatvec(self, x: npt.ArrayLike) -> np.ndarray:
        r""":math:`A^{\mathsf H} x`: SciPy's convention is the conjugate transpose, which ``A.T`` is not where entries are complex."""

    def matmat(self, X: npt.ArrayLike) -> np.ndarray:
        r""":math:`A X` for a matrix whose columns are vectors in flat coordinates."""
        return _columns(self.matvec, X, self.shape)

    def rmatmat(self, X: npt.ArrayLike) -> np.ndarray:
        r""":math:`A^{\mathsf H} X`."""
        return _columns(self.rmatvec, X, self.shape[::-1])

    def to_lineax(self, tags: object = (), *, holomorphic: bool = False) -> lineax.AbstractLinearOperator:
        """The map as a ``lineax`` operator, for its solvers; ``tags`` as those of ``lineax.FunctionLinearOperator``.

        Its products are those of this map, and so is its transpose: lineax has nothing to transpose.  ``holomorphic`` is as in
        :meth:`dense`.

        Raises:
          ImportError: lineax is not installed.
          ValueError: the map has complex inputs and is linear over the real numbers only.
        """
        m = self.as_map()
        if not holomorphic:
            m.check_complex_linear("to_lineax")
        return lineax_operator.operator(self, m.structure, tags)

    # ----------------------------------------------------------------------------------------------------------------- copies

    @abstractmethod
    def __copy__(self) -> Self: ...

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        leaves, tree = jax.tree_util.tree_flatten(self)
        copied: dict[int, ArrayLike] = {}
        for x in leaves:
            if id(x) not in copied:
                copied[id(x)] = jnp.array(x) if isinstance(x, jax.Array) else np.array(x) if isinstance(x, np.ndarray) else x
        made: Self = tree_unflatten(tree, [copied[id(x)] for x in leaves])
        return made

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
                f"<table><thead><tr><th>operation</th><th>number</th></tr></thead><tbody>{rows}</tbody></table>"
                f"{''.join(picture(self) for picture in PICTURES)}</div>")

    def _title(self) -> str:
        return f"Linear map of {self.as_map().structure}"

    def _figures(self) -> str:
        m, n = self.shape
        return f"{m} x {n}, {self.n_ops} ops, {self.residual_bytes:,} residual bytes"


def check_scalar(factor: object, operator: Operator) -> None:
    if not is_array_like(factor) or typeof(factor).shape != ():
        what = f"{type(factor).__name__} of shape {typeof(factor).shape}" if is_array_like(factor) else f"{factor!r}"
        raise TypeError(f"A linear map is multiplied and divided by scalars; got {what}. (J @ v applies the map "
                        f"{operator.as_map().structure}, and J @ K composes two.)")


def _columns(product: Callable[[np.ndarray], np.ndarray], X: npt.ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    X = np.asarray(X)
    m, n = shape
    if X.ndim != 2 or X.shape[0] != n:
        raise ValueError(f"matmat and rmatmat take a matrix with {n} rows; got shape {X.shape}")
    return np.stack([product(x) for x in X.T], 1) if X.shape[1] else np.zeros((m, 0), X.dtype)


def count_ops(linear_map: LinearMap) -> Counter[str]:
    """How often each operation stands on a tape, looking into compiled functions and loop bodies."""
    counts: Counter[str] = Counter()
    waiting = [linear_map]
    while waiting:
        current = waiting.pop()
        inner = current.inner_maps()
        if inner is None:
            counts[current.name] += 1
        else:
            waiting.extend(inner)
    return counts


def _table(linear_map: LinearMap) -> list[str]:
    counts = count_ops(linear_map)
    width = max((len(name) for name in counts), default=0)
    return [f"{name:<{width}}  {count:>6}" for name, count in counts.most_common()]
