"""The functional face: Laplacians, weighted Laplacians, diagonals of Hessians and biharmonic operators, in one forward evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jax.tree_util import tree_unflatten
from jax.typing import ArrayLike

from dualrev import errors
from dualrev._jax.avals import is_array_like, tangent_aval, typeof
from dualrev._jax.sharding import explicit_sharding, varying
from dualrev._jax.traces import Tracer, is_eager
from dualrev._jax.trees import PyTree
from dualrev.engines.direction_blocks import Blocks, identity
from dualrev.engines.laplacian import SecondDerivatives
from dualrev.engines.parts import evaluate
from dualrev.engines.sweeps import columns
from dualrev.functional import checks
from dualrev.functional.checks import Argnums
from dualrev.functional.gradients import P, Partial, wraps
from dualrev.linear import zeros
from dualrev.linear.basis import basis_vectors, positions
from dualrev.options.settings import Options, Request, current, using

#: Directions, stacked along a first axis, one array for each input, or None for the unit vectors; and how many of them, at the end,
#: count negative.
Directions: TypeAlias = tuple[list[jax.Array] | None, int]

#: The coefficients ``W_ij``: a matrix, or the diagonal of one; or a function of the arguments that returns one.
Weights: TypeAlias = ArrayLike | Callable[..., ArrayLike]

#: The number of directions up to which an un-jitted evaluation keeps them stacked.
MOST_STACKED_UNJITTED = 192


class _Call:
    """One call of a function, whose second derivatives are to be found."""

    def __init__(self, name: str, fun: Callable[..., PyTree], argnums: int | tuple[int, ...], has_aux: bool, chunk_size: int | None,
                 request: Request, args: tuple[PyTree, ...], kwargs: dict[str, PyTree]):
        self.partial = Partial(name, fun, argnums, args, kwargs)
        self.call, self.flat = self.partial.flat_call(has_aux, request)
        self.chunk_size = chunk_size
        for x in self.flat:
            checks.check_real_input(name, x)
        self.avals = [tangent_aval(typeof(x)) for x in self.flat]
        self.n = sum(a.size for a in self.avals)

    def basis(self) -> Directions:
        return None, 0

    def has_blocks(self) -> bool:
        """Whether derivatives along the unit vectors are kept in blocks.

        Un-jitted, each operation on blocks takes longer to dispatch than one on stacked directions, which pays where these are many.
        """
        if current.get().zero_wins or (is_eager(self.flat) and self.n <= MOST_STACKED_UNJITTED):
            return False
        return not any(varying(a) or explicit_sharding(a) is not None or any(is_symbolic_dim(n) for n in a.shape) for a in self.avals)

    def along(self, rows: jax.Array) -> list[jax.Array]:
        """Directions from a matrix, one in each row, whose columns are the elements of all inputs."""
        found, start = [], 0
        for a in self.avals:
            block = rows[:, start: start + a.size].astype(a.dtype)
            found.append(lax.reshape(block, (rows.shape[0], *a.shape)))
            start += a.size
        return found

    def evaluate(self, directions: Sequence[jax.Array | Blocks], n_minus: int,
                 is_summed: bool) -> tuple[list[jax.Array], list[jax.Array]]:
        """Everything the function returns, and the second derivatives of its outputs."""
        first = directions[0] if directions else None
        k = 0 if first is None else self.n if isinstance(first, Blocks) else first.shape[0]
        if k == 0:
            results = self.call(*self.flat)
            outs = results[: self.call.n_out]
            return results, [jnp.zeros(jnp.shape(x) if is_summed else (0, *jnp.shape(x)), typeof(x).dtype) for x in outs]
        mode = SecondDerivatives(k, is_summed, n_minus)
        results, parts = evaluate(mode, self.call, self.flat, [(d, None) for d in directions])
        found = []
        for x, p in zip(results[: self.call.n_out], parts, strict=False):
            aval = typeof(x)
            if p is not None and p[1] is not None:
                found.append(zeros.fit(p[1], aval if is_summed else aval.update(shape=(k, *aval.shape))))
            else:  # an integer output has zeros of its own dtype, as Jacobians do
                found.append(jnp.zeros(aval.shape if is_summed else (k, *aval.shape), aval.dtype))
        return results, found

    def second(self, directions: Directions, is_summed: bool = True) -> tuple[list[jax.Array], list[jax.Array]]:
        """As :meth:`evaluate`, for no more directions at once than ``chunk_size``."""
        stacked, n_minus = directions
        size = self.chunk_size
        if stacked is None:
            if is_summed and (size is None or self.n <= size) and self.n and self.has_blocks():
                return self.evaluate(identity(self.avals), 0, True)
            stacked = basis_vectors(self.avals, positions(self.n))
        k = stacked[0].shape[0] if stacked else 0
        if size is None or k <= size:
            return self.evaluate(stacked, n_minus, is_summed)
        if n_minus:
            results, plus = self.second(([d[: k - n_minus] for d in stacked], 0), is_summed)
            _, minus = self.second(([d[k - n_minus:] for d in stacked], 0), is_summed)
            return results, [lax.sub(p, m) for p, m in zip(plus, minus, strict=True)]
        first = k % size or size  # the values come from the first chunk: those of a loop stay inside it
        results, found = self.evaluate([d[:first] for d in stacked], 0, is_summed)
        rest = [lax.reshape(d[first:], ((k - first) // size, size, *d.shape[1:])) for d in stacked]
        if not rest[0].shape[0]:
            return results, found
        if is_eager(()):
            chunks = [self.evaluate([d[i] for d in rest], 0, is_summed)[1] for i in range(rest[0].shape[0])]
            later = [jnp.stack(parts) for parts in zip(*chunks, strict=True)]
            if is_summed:
                return results, [lax.add(x, jnp.sum(y, 0, dtype=y.dtype)) for x, y in zip(found, later, strict=True)]
        elif is_summed:
            def add(total: list[jax.Array], chunk: list[jax.Array]) -> tuple[list[jax.Array], None]:
                return [lax.add(x, y) for x, y in zip(total, self.evaluate(chunk, 0, True)[1], strict=True)], None

            return results, lax.scan(add, found, rest)[0]
        else:
            later = lax.map(lambda chunk: self.evaluate(chunk, 0, False)[1], rest)
        return results, [jnp.concatenate([x, lax.reshape(y, (k - first, *y.shape[2:]))]) for x, y in zip(found, later, strict=True)]

    def finish(self, results: Sequence[jax.Array], found: PyTree, has_aux: bool) -> tuple[PyTree, PyTree]:
        value, aux = self.call.finish(results)
        return ((value, aux) if has_aux else value), found


def _second(name: str, fun: Callable[P, PyTree], argnums: Argnums, has_aux: bool, chunk_size: int | None, options: Options,
            directions_of: Callable[[_Call], Directions]) -> Callable[P, tuple[PyTree, PyTree]]:
    with errors.calling(name):
        checks.check_callable(fun)
    positions = checks.normalize_argnums(argnums)
    checks.check_chunk_size(name, chunk_size)
    request = Request.of(name, options, isinstance(positions, int))

    def second_f(*args: P.args, **kwargs: P.kwargs) -> tuple[PyTree, PyTree]:
        with errors.calling(name), using(request.settings):
            call = _Call(name, fun, positions, has_aux, chunk_size, request, args, kwargs)
            results, found = call.second(directions_of(call))
            return call.finish(results, tree_unflatten(call.call.out_tree, found), has_aux)

    return second_f


def laplacian(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None,
              **options: Unpack[Options]) -> Callable[P, tuple[PyTree, PyTree]]:
    r"""The function that returns a function's value and its Laplacian: :math:`x \mapsto (f(x),\, \sum_i \partial_i^2 f(x))`.

    One evaluation carries each value with its derivatives by all inputs and the sum of its second derivatives: :math:`n + 2` values for
    :math:`n` input elements, where a push of a push for each takes :math:`2 n + 1`.

    Args:
      fun: function of real arrays or pytrees of them; its outputs may be complex, and of any shape.
      argnums: the positional arguments to differentiate: an int, or a sequence of ints.  The sum is over all elements of them.
      has_aux: whether ``fun`` returns ``(value, aux)``; the result is then ``((value, aux), laplacian)``.
      chunk_size: how many inputs to carry derivatives by at once, to bound memory; None for all.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, laplacian)``, two trees alike.

    Raises:
      TypeError: an input is not real, or an output is not an array.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> value, laplacian = dr.laplacian(lambda x: jnp.sum(x ** 3))(jnp.array([1.0, 2.0]))
    >>> float(value), float(laplacian)
    (9.0, 18.0)

    Source: [DangelEtAl2025]; [LiEtAl2024].
    """
    return wraps(fun, argnums, "Value and Laplacian")(_second("laplacian", fun, argnums, has_aux, chunk_size, options, _Call.basis))


def weighted_laplacian(fun: Callable[P, PyTree], weights: Weights, argnums: Argnums = 0, has_aux: bool = False, *,
                       chunk_size: int | None = None, **options: Unpack[Options]) -> Callable[P, tuple[PyTree, PyTree]]:
    r"""The function that returns a function's value and a weighted sum of its second derivatives.

    :math:`x \mapsto (f(x),\, \sum_{ij} W_{ij}\, \partial_i \partial_j f(x))`.  A matrix of known values takes as many directions as its
    rank: :math:`W = \sum_k \pm s_k s_k^{\mathsf T}`.  One that is traced takes two for each input: :math:`\sum_j W_{ij} \partial_i
    \partial_j f = D^2 f[e_i, w_i]`, which is :math:`\tfrac14 (D^2 f[e_i + w_i]^2 - D^2 f[e_i - w_i]^2)`.

    Args:
      fun, argnums, has_aux, chunk_size, options: as in :func:`laplacian`.
      weights: the real matrix :math:`W`, of which only the symmetric part counts, or its diagonal as a vector; its rows and columns are
        the elements of all inputs, in the order of ``jax.tree.leaves``.  Or a function that returns it, of the arguments of ``fun``;
        :math:`W` is not differentiated by :math:`x`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, weighted sum)``, two trees alike.

    Raises:
      ValueError: the shape of the weights is neither ``(n, n)`` nor ``(n,)``, or known weights are not finite.
      TypeError: the weights are not real; and as :func:`laplacian`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> f = lambda x: x[0] ** 2 * x[1]
    >>> round(float(dr.weighted_laplacian(f, jnp.array([[0.0, 1.0], [1.0, 0.0]]))(jnp.array([1.0, 2.0]))[1]), 4)
    4.0

    Source: [DangelEtAl2025, sec. 3.2].
    """
    def directions(call: _Call) -> Directions:
        args = call.partial.args
        given = weights(*args, **call.partial.kwargs) if callable(weights) else weights
        return _weighted(call, given)

    found = _second("weighted_laplacian", fun, argnums, has_aux, chunk_size, options, directions)
    return wraps(fun, argnums, "Value and weighted Laplacian")(found)


def _weighted(call: _Call, given: ArrayLike) -> Directions:
    """Directions whose second derivatives sum to the weighted ones."""
    if not is_array_like(given):
        raise TypeError(f"weighted_laplacian: the weights must be an array, or a function that returns one; got {given!r} of type "
                        f"{type(given).__name__}")
    shape, dtype = jnp.shape(given), typeof(given).dtype
    if shape not in ((call.n,), (call.n, call.n)):
        raise ValueError(f"weighted_laplacian: the weights must have shape ({call.n}, {call.n}), or ({call.n},) for a diagonal, as the "
                         f"inputs have {call.n} elements; got shape {shape}")
    if not jnp.issubdtype(dtype, jnp.floating) and not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"weighted_laplacian: the weights must be real numbers; got dtype {dtype.name}")
    if not isinstance(given, Tracer):
        W = np.asarray(given, np.float64)
        if not np.isfinite(W).all():
            raise ValueError("weighted_laplacian: the weights must be finite; got NaN or infinity in "
                             f"{int(np.sum(~np.isfinite(W)))} of {W.size} entries")
        values, vectors = (W, np.eye(call.n)) if W.ndim == 1 else np.linalg.eigh((W + W.T) / 2)
        least = call.n * np.finfo(np.float64).eps * np.abs(values).max(initial=0)
        order = [*np.flatnonzero(values > least), *np.flatnonzero(values < -least)]
        rows = (vectors[:, order] * np.sqrt(np.abs(values[order]))).T
        return call.along(jnp.asarray(rows, jnp.result_type(float))), int(np.sum(values[order] < 0))
    traced = lax.convert_element_type(given, dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))
    traced = jnp.diag(traced) if traced.ndim == 1 else (traced + traced.T) / 2
    unit = jnp.eye(call.n, dtype=traced.dtype)
    return call.along(jnp.concatenate([unit + traced, unit - traced]) / 2), call.n


def hessian_diagonal(fun: Callable[P, PyTree], argnums: Argnums = 0, has_aux: bool = False, *, chunk_size: int | None = None,
                     **options: Unpack[Options]) -> Callable[P, tuple[PyTree, PyTree]]:
    r"""The function that returns a function's value and the diagonal of its Hessian: :math:`x \mapsto (f(x),\, \partial_i^2 f(x))`.

    Args:
      fun, argnums, has_aux, chunk_size, options: as in :func:`laplacian`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, diagonal)``: a tree of outputs of trees of inputs, with leaves of
      shape ``(*output, *input)``.

    Raises:
      TypeError: as :func:`laplacian`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.hessian_diagonal(lambda x: jnp.sum(x ** 3))(jnp.array([1.0, 2.0]))[1].tolist()
    [6.0, 12.0]

    Source: [GriewankWalther2008, sec. 13.3].
    """
    name = "hessian_diagonal"
    with errors.calling(name):
        checks.check_callable(fun)
    positions = checks.normalize_argnums(argnums)
    checks.check_chunk_size(name, chunk_size)
    request = Request.of(name, options, isinstance(positions, int))

    @wraps(fun, argnums, "Value and diagonal of the Hessian")
    def diagonal_f(*args: P.args, **kwargs: P.kwargs) -> tuple[PyTree, PyTree]:
        with errors.calling(name), using(request.settings):
            call = _Call(name, fun, positions, has_aux, chunk_size, request, args, kwargs)
            results, stacked = call.second(call.basis(), is_summed=False)
            blocks = columns(stacked, call.avals, [typeof(x) for x in results[: call.call.n_out]])
            trees = [call.partial.unwrap(tree_unflatten(call.call.in_tree, row)) for row in blocks]
            return call.finish(results, tree_unflatten(call.call.out_tree, trees), has_aux)

    return diagonal_f


def biharmonic(fun: Callable[P, PyTree], argnums: Argnums = 0, *, chunk_size: int | None = None,
               **options: Unpack[Options]) -> Callable[P, tuple[PyTree, PyTree]]:
    r"""The function that returns a function's value and its biharmonic: :math:`x \mapsto (f(x),\, \Delta^2 f(x))`.

    It is the Laplacian of the Laplacian, :math:`\sum_{ij} \partial_i^2 \partial_j^2 f`.

    Args:
      fun, argnums, chunk_size, options: as in :func:`laplacian`.

    Returns:
      A function with the arguments of ``fun`` that returns ``(value, biharmonic)``, two trees alike.

    Raises:
      TypeError: as :func:`laplacian`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> float(dr.biharmonic(lambda x: jnp.sum(x ** 2) ** 2)(jnp.array([1.0, 2.0]))[1])
    64.0

    Source: [DangelEtAl2025, sec. 3.3].
    """
    name = "biharmonic"
    inner = _second(name, fun, argnums, False, chunk_size, options, _Call.basis)

    def laplacian_first(*args: P.args, **kwargs: P.kwargs) -> tuple[PyTree, PyTree]:
        value, found = inner(*args, **kwargs)
        return found, value

    outer = _second(name, laplacian_first, argnums, True, chunk_size, options, _Call.basis)

    @wraps(fun, argnums, "Value and biharmonic")
    def biharmonic_f(*args: P.args, **kwargs: P.kwargs) -> tuple[PyTree, PyTree]:
        (_, value), found = outer(*args, **kwargs)
        return value, found

    return biharmonic_f
