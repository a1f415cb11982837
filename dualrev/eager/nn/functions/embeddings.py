"""Tables of vectors: rows at indices, and sums of rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core.dtypes import type_name
from dualrev.eager.core.modes import no_grad
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.checks import first_outside


def _rows_of(w: jax.Array, index: jax.Array, padding: int | None, by_frequency: bool) -> jax.Array:
    """The rows; what has no gradient, or a fraction of it, is said by the factor of the part that is differentiated."""
    rows = jnp.take(w, index, 0)
    if padding is not None:
        rows = jnp.where((index == padding)[..., None], lax.stop_gradient(rows), rows)
    if by_frequency:
        counts = jnp.zeros(w.shape[0], w.dtype).at[index.reshape(-1)].add(1)
        fixed = lax.stop_gradient(rows)
        rows = fixed + (rows - fixed) / jnp.take(counts, index, 0)[..., None]
    return rows


_rows = family("Embedding", _rows_of)


def _shortened_of(w: jax.Array, index: jax.Array, bound: Any, p: Any) -> jax.Array:
    rows = jnp.take(w, index.reshape(-1), 0)
    norms = jnp.sum(jnp.abs(rows) ** p, 1) ** (1 / p)
    factor = jnp.where(norms > bound, bound / (norms + 1e-7), 1)
    return w.at[index.reshape(-1)].set((rows * factor[:, None]).astype(w.dtype))


_SHORTENED = Op("EmbeddingRenorm", _shortened_of)


def _check_index(index: Any, n_rows: int, name: str) -> None:
    if index.dtype.kind not in "iu":
        raise RuntimeError("Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
                           f"torch.{type_name(index.dtype)}Tensor instead (while checking arguments for {name})")
    wrong = first_outside(index, n_rows)
    if wrong is not None:
        raise IndexError(f"index out of range in self\nindex {wrong} of a table of {n_rows} rows")


def _padding(given: int | None, n_rows: int) -> int | None:
    if given is None:
        return None
    if not -n_rows <= given < n_rows:
        raise AssertionError("Padding_idx must be within num_embeddings")
    return given % n_rows


def _shorten(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:  # noqa: A002
    """Shorten, in place, those rows that are read and longer than ``max_norm``."""
    with no_grad():
        change(weight, _SHORTENED, (input, float(max_norm), float(norm_type)))


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None, norm_type: float = 2.0,  # noqa: A002
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """The rows of a table at indices.

    Row ``padding_idx`` gets no gradient.  With ``max_norm``, the rows that are read are shortened in place first.  With
    ``scale_grad_by_freq``, the gradient of a row is divided by the number of times that it is read.  ``sparse`` is accepted, and the
    gradient is dense.
    """
    _check_index(array_of(input), weight.shape[0], "embedding")
    padding = _padding(padding_idx, weight.shape[0])
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type)
    return apply(_rows(padding, scale_grad_by_freq), (weight, input))


def _bags_of(w: jax.Array, index: jax.Array, counts: jax.Array, *rest: Any) -> jax.Array:
    """The rows of each bag, of (bags, places, features), reduced; ``counts`` says which places do."""
    *weights, mode, padding, by_frequency = rest
    rows = _rows_of(w, index, None, by_frequency)
    if padding is not None:
        counts = counts & (index != padding)
    counts = counts[..., None]
    if mode == "max":
        best = jnp.argmax(jnp.where(counts, lax.stop_gradient(rows), -jnp.inf), 1)[:, None]
        return jnp.where(jnp.any(counts, 1), jnp.take_along_axis(rows, best, 1)[:, 0], 0)
    total = jnp.sum(jnp.where(counts, rows * weights[0][..., None] if weights else rows, 0), 1)
    return total / jnp.maximum(jnp.sum(counts, 1), 1).astype(w.dtype) if mode == "mean" else total


_bags = family("EmbeddingBag", _bags_of)


def _places(offsets: np.ndarray, n: int, with_last: bool) -> tuple[np.ndarray, np.ndarray]:
    """For bags that begin at offsets: the places of their entries, of (bags, longest), and which of them count."""
    ends = np.append(offsets[1:], n)
    starts, ends = (offsets[:-1], ends[:-1]) if with_last else (offsets, ends)
    places = starts[:, None] + np.arange(max(int((ends - starts).max(initial=0)), 1))
    return np.minimum(places, max(n - 1, 0)), places < ends[:, None]


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,  # noqa: A002
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None
                  ) -> Tensor:
    """Means, sums or maxima of rows of a table; one bag for each row of ``input``, or from each offset to the next."""
    if per_sample_weights is not None and input.shape != per_sample_weights.shape:
        raise ValueError(f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the same "
                         f"shape as the input ({input.shape})")
    if weight.ndim != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.ndim}")
    if input.ndim not in (1, 2):
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if input.ndim == 2 and offsets is not None:
        raise ValueError("if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length sequences. "
                         f"However, found offsets of type {type(offsets)}")
    if input.ndim == 1 and (offsets is None or offsets.ndim != 1):
        raise ValueError("offsets has to be a 1D Tensor" + (" but got None" if offsets is None else ""))
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError("embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
                                  f"(got mode='{mode}'). Please open a feature request on GitHub.")
    _check_index(array_of(input), weight.shape[0], "embedding_bag")
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type)
    counts = np.ones(tuple(input.shape), bool)
    if offsets is not None:
        starts = np.asarray(array_of(offsets))
        if starts.size and starts[0] != 0:
            raise RuntimeError("offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. "
                               f"However, got {starts[0]}")
        places, counts = _places(starts, input.shape[0], include_last_offset)
        if not input.shape[0]:
            return weight.new_zeros((len(places), weight.shape[1]))
        input = input[wrap(places)]  # noqa: A001
        per_sample_weights = None if per_sample_weights is None else per_sample_weights[wrap(places)]
    more = () if per_sample_weights is None else (per_sample_weights,)
    return apply(_bags(mode, _padding(padding_idx, weight.shape[0]), scale_grad_by_freq), (weight, input, wrap(counts), *more))
