"""The public functions that detect patterns, and the report of how exact a pattern is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import scipy.sparse as sp
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_array_like, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, stage
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.functional import checks
from dualrev.functional.checks import Argnums
from dualrev.programs.functions import as_arrays
from dualrev.sparse.boolean import boolean_bcoo
from dualrev.sparse.patterns import hessian_csr, jacobian_csr

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO


def jacobian_pattern(fun: Callable[..., PyTree], argnums: Argnums = 0) -> Callable[..., PyTree]:
    r"""Where the Jacobian of a function may be nonzero: entry :math:`(i, j)` is True unless :math:`\partial f_i / \partial x_j = 0`.

    It is found from the function's program, by what the table says of each operation, without evaluating a derivative.  No entry is
    missed.  An entry may be True although the derivative is zero, where that depends on numbers that are not known, such as an index
    that the function computes (:func:`pattern_report` lists where).  Constants of the function are known: their zeros are read.

    Args:
      fun: function of real or complex arrays or pytrees of them.
      argnums: the positions of the arguments that are differentiated.

    Returns:
      A function of the arguments of ``fun``, of which only the types count: a ``jax.ShapeDtypeStruct`` does for an array, and the
      pattern holds for all arrays of these types.  With ``at=`` the pattern holds at one point: ``at`` is the value of the
      differentiated argument (a tuple, where ``argnums`` is one), and a branch, a maximum or a product with zero then adds what it
      has there; other arguments count by their values.  If ``fun`` has no other arguments, ``at`` alone is enough.

      The result is a tree of outputs of trees of inputs, as that of :func:`dualrev.jacobian`, with a
      ``jax.experimental.sparse.BCOO`` of booleans for each pair of arrays, of the shape of the output and then the input.

    Raises:
      TypeError: a differentiated argument is neither real nor complex, or an argument or an output is not an array.
      MissingRuleError: an operation has no row in the table.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> def f(x):
    ...     return x[1:] * jnp.sin(x[:-1])
    >>> dr.sparse.jacobian_pattern(f)(jnp.zeros(3)).todense().tolist()
    [[True, True, False], [False, True, True]]
    >>> dr.sparse.jacobian_pattern(f)(at=jnp.array([1.0, 0.0, 2.0])).todense().tolist()
    [[False, True, False], [False, True, False]]

    Source: [GriewankWalther2008, ch. 7.1].
    """
    return _pattern_of("jacobian_pattern", fun, argnums)


def hessian_pattern(fun: Callable[..., PyTree], argnums: Argnums = 0) -> Callable[..., PyTree]:
    r"""Where the Hessian of a function may be nonzero: the pairs :math:`(i, j)` that may have
    :math:`\partial^2 f / \partial x_i\, \partial x_j \ne 0`; for several outputs, those of any output.

    Pairs of inputs that interact are propagated with the inputs that each value depends on: a product makes its factors interact, a
    nonlinear function all inputs of its argument, and a linear operation none.  No gradient is formed, so that the function may have
    any loop.

    Args:
      fun, argnums: as in :func:`jacobian_pattern`.

    Returns:
      A function of the arguments of ``fun``, as that of :func:`jacobian_pattern`; with ``at=``, branches and selections are those of
      the point.  The result is a tree of inputs of trees of inputs, as that of :func:`dualrev.hessian` of a scalar function, with a
      symmetric pattern.

    Raises:
      TypeError: a differentiated argument is neither real nor complex, or an argument or an output is not an array.
      MissingRuleError: an operation has no row in the table.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.sparse.hessian_pattern(lambda x: x[0] * x[1] + jnp.exp(x[2]))(jnp.zeros(3)).todense().tolist()
    [[False, True, False], [True, False, False], [False, False, True]]

    Source: [Walther2008].
    """
    return _pattern_of("hessian_pattern", fun, argnums)


@dataclass(frozen=True)
class PatternReport:
    """How large a pattern is, and where it may be larger than the derivative's.

    Attributes:
      kind: ``"jacobian"`` or ``"hessian"``.
      shape: rows and columns of the whole matrix, with outputs and inputs flattened and concatenated.
      nnz: the entries that may be nonzero.
      lost: for each operation that had to be taken for more than it does, with the reason, how often.  If it is empty, every
        operation was followed exactly.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> report = dr.sparse.pattern_report(lambda x: x[1:] * x[:-1])(jnp.ones(5))
    >>> report.shape, report.nnz, report.lost
    ((4, 5), 8, {})
    """

    kind: str
    shape: tuple[int, int]
    nnz: int
    lost: dict[str, int]

    def __str__(self) -> str:
        rows, columns = self.shape
        share = self.nnz / max(rows * columns, 1)
        lines = [f"{self.kind}: {rows} x {columns}, {self.nnz} entries ({share:.2%})"]
        lines += [f"  conservative at {why} ({times} times)" for why, times in sorted(self.lost.items())]
        return "\n".join(lines if self.lost else [*lines, "  every operation was followed exactly"])


def pattern_report(fun: Callable[..., PyTree], argnums: Argnums = 0, order: int = 1) -> Callable[..., PatternReport]:
    """How large the pattern of a Jacobian or Hessian is, and the operations at which it may be larger than the derivative's.

    Args:
      fun, argnums: as in :func:`jacobian_pattern`.
      order: 1 for the Jacobian, 2 for the Hessian.

    Returns:
      A function of the arguments of ``fun``, as that of :func:`jacobian_pattern`, which returns a :class:`PatternReport`.

    Raises:
      TypeError: a differentiated argument is neither real nor complex, or an argument or an output is not an array.
      ValueError: ``order`` is neither 1 nor 2.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> print(dr.sparse.pattern_report(lambda x: x[jnp.argmax(x)] * x)(jnp.zeros(40)))
    Jacobian: 40 x 40, 1600 entries (100.00%)
      conservative at dynamic_slice: the place is not known (1 times)

    Source: [GriewankWalther2008, ch. 7.1].
    """
    if order not in (1, 2):
        raise ValueError(f"pattern_report: order must be 1 (Jacobian) or 2 (Hessian); got {order!r}")
    detect = _detection("pattern_report", fun, argnums, second=order == 2)

    def report(*args: PyTree, at: PyTree = None, **kwargs: PyTree) -> PatternReport:
        _, found, lost = detect(args, at, kwargs)
        rows, columns = found.shape
        return PatternReport("Hessian" if order == 2 else "Jacobian", (rows, columns), found.nnz, dict(lost))

    return report


# ------------------------------------------------------------------------------------------------------------------- detection


class Call:
    """A call of a function as a program, by the types of its arguments."""

    def __init__(self, name: str, fun: Callable[..., PyTree], positions: tuple[int, ...], args: tuple[PyTree, ...],
                 kwargs: dict[str, PyTree]):
        tree: PyTreeDef
        paths, tree = tree_flatten_with_path((args, kwargs))
        #: The number of the argument that a leaf belongs to, if it is differentiated.
        owners = [i if i in positions else None for i, x in enumerate(args) for _ in jax.tree.leaves(x)]
        owners += [None] * len(jax.tree.leaves(kwargs))
        self.avals: list[ShapedArray] = []
        self.values: list[jax.Array | None] = []
        fixed: list[tuple[Any] | None] = []
        places: dict[int, list[int]] = {i: [] for i in positions}
        for (path, leaf), owner in zip(paths, owners, strict=True):
            where = f"{'args' if path[0].idx == 0 else 'kwargs'}{keystr(path[1:])}"
            aval = _aval_of(leaf)
            if owner is not None:
                _check(name, where, leaf, aval)
            fixed.append(None if aval is not None else (leaf,))
            if aval is not None:
                if owner is not None:
                    places[owner].append(len(self.avals))
                self.avals.append(aval)
                self.values.append(None if isinstance(leaf, jax.ShapeDtypeStruct) else as_arrays([leaf])[0])
        #: The arrays that are differentiated, in the order of the columns: that of ``argnums``.
        self.active = [k for i in positions for k in places[i]]
        self.argument_trees = [(jax.tree.structure(args[i]), len(jax.tree.leaves(args[i]))) for i in positions]

        def flat(*arrays: jax.Array) -> list[jax.Array]:
            given = iter(arrays)
            arguments, keywords = tree_unflatten(tree, [next(given) if x is None else x[0] for x in fixed])
            result = fun(*arguments, **keywords)
            checks.check_leaves(result, "outputs")
            outs, self.out_tree = tree_flatten(result)
            return as_arrays(outs)

        self.program: ClosedJaxpr = stage(flat, self.avals)

    @property
    def in_avals(self) -> list[ShapedArray]:
        """The types of the arrays that are differentiated."""
        return [self.avals[k] for k in self.active]


def _aval_of(leaf: object) -> ShapedArray | None:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return ShapedArray(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
    return typeof(as_arrays([leaf])[0]) if is_array_like(leaf) else None


def _check(name: str, where: str, leaf: object, aval: ShapedArray | None) -> None:
    """Refuse an argument that cannot be differentiated."""
    if aval is None:
        raise TypeError(f"{name} differentiates arrays, and {where} is {leaf!r}, of type {type(leaf).__name__}. Pass an array or a "
                        "jax.ShapeDtypeStruct, or leave the argument out of argnums.")
    if jax.dtypes.issubdtype(aval.dtype, np.inexact):
        return
    raise TypeError(f"{name} requires real- or complex-valued inputs (input dtype that is a sub-dtype of np.inexact), but {where} is "
                    f"{aval.dtype.name}{list(aval.shape)}. Convert it to a floating dtype, or leave the argument out of argnums.")


def _detection(name: str, fun: Callable[..., PyTree], argnums: Argnums,
               second: bool) -> Callable[[tuple[PyTree, ...], PyTree, dict[str, PyTree]], tuple[Call, sp.csr_array, Counter[str]]]:
    with errors.calling(name):
        checks.check_callable(fun)
    argnums = checks.normalize_argnums(argnums)

    def detect(args: tuple[PyTree, ...], at: PyTree, kwargs: dict[str, PyTree]) -> tuple[Call, sp.csr_array, Counter[str]]:
        with errors.calling(name):
            is_local = at is not None
            if is_local:
                points = (at,) if isinstance(argnums, int) else tuple(at)
                args = list(args) or [None] * len(points)  # type: ignore[assignment]
                for i, x in zip(checks.resolve_argnums(argnums, len(args), name), points, strict=True):
                    args[i] = x  # type: ignore[index]
                args = tuple(args)
            call = Call(name, fun, checks.resolve_argnums(argnums, len(args), name), args, kwargs)
            lost: Counter[str] = Counter()
            csr = hessian_csr if second else jacobian_csr
            return call, csr(call.program, call.avals, call.values if is_local else None, call.active, lost), lost

    return detect


def _pattern_of(name: str, fun: Callable[..., PyTree], argnums: Argnums) -> Callable[..., PyTree]:
    second = name == "hessian_pattern"
    detect = _detection(name, fun, argnums, second)

    def pattern(*args: PyTree, at: PyTree = None, **kwargs: PyTree) -> PyTree:
        call, found, _ = detect(args, at, kwargs)
        columns = call.in_avals
        rows = columns if second else list(call.program.out_avals)
        single = isinstance(checks.normalize_argnums(argnums), int)

        def of_inputs(values: list[Any]) -> PyTree:
            given = iter(values)
            trees = [tree_unflatten(t, [next(given) for _ in range(n)]) for t, n in call.argument_trees]
            return trees[0] if single else tuple(trees)

        blocks = [of_inputs(row) for row in _blocks(found, rows, columns)]
        return of_inputs(blocks) if second else tree_unflatten(call.out_tree, blocks)

    return pattern


def _blocks(found: sp.csr_array, rows: list[ShapedArray], columns: list[ShapedArray]) -> list[list[BCOO]]:
    """The pattern for each pair of arrays."""
    coo = found.tocoo()
    row, column = np.asarray(coo.row, np.int64), np.asarray(coo.col, np.int64)
    blocks, first_row = [], 0
    for out in rows:
        own, first_column = (row >= first_row) & (row < first_row + out.size), 0
        line = []
        for to in columns:
            kept = own & (column >= first_column) & (column < first_column + to.size)
            where = _unraveled(row[kept] - first_row, out.shape), _unraveled(column[kept] - first_column, to.shape)
            line.append(boolean_bcoo(np.concatenate(where, 1), (*out.shape, *to.shape)))
            first_column += to.size
        blocks.append(line)
        first_row += out.size
    return blocks


def _unraveled(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``(n, dimensions)``: the indices of flat places."""
    return np.stack(np.unravel_index(flat, shape), 1) if shape else np.zeros((len(flat), 0), np.int64)
