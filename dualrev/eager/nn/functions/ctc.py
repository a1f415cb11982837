"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap

#: The logarithm of probability zero: finite, so that differences of such numbers are.
_NEVER = -1e30


def _ctc_of(logs: jax.Array, targets: jax.Array, times: jax.Array, lengths: jax.Array, blank: int, reduction: str,
            zero_infinity: bool) -> jax.Array:
    """The sum over all paths, forwards in time [Graves06, eqs. 6 and 7]; ``logs`` is (time, batch, class)."""
    n_times, batch, _ = logs.shape
    states = 2 * targets.shape[1] + 1
    labels = jnp.full((batch, states), blank).at[:, 1::2].set(targets)
    # A path may skip the blank between two labels that differ.
    skips = jnp.pad((labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2]), ((0, 0), (2, 0)))
    each = jnp.take_along_axis(logs, jnp.broadcast_to(labels, (n_times, batch, states)), 2)
    each = jnp.maximum(each, jnp.asarray(_NEVER, logs.dtype))
    start = jnp.where((jnp.arange(states) == 0) | ((jnp.arange(states) == 1) & (lengths > 0)[:, None]), each[0], _NEVER)

    def step(alpha: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        log, time = given
        one = jnp.pad(alpha[:, :-1], ((0, 0), (1, 0)), constant_values=_NEVER)
        two = jnp.where(skips, jnp.pad(alpha[:, :-2], ((0, 0), (2, 0)), constant_values=_NEVER)[:, :states], _NEVER)
        paths = jnp.stack([alpha, one, two])
        most = lax.stop_gradient(jnp.max(paths, 0))
        new = jnp.log(jnp.sum(jnp.exp(paths - most), 0)) + most + log
        return jnp.where((time < times)[:, None], jnp.maximum(new, _NEVER), alpha), None

    alpha, _ = lax.scan(step, start.astype(logs.dtype), (each[1:], jnp.arange(1, n_times)))
    last = jnp.take_along_axis(alpha, (2 * lengths)[:, None], 1)[:, 0]
    before = jnp.take_along_axis(alpha, jnp.maximum(2 * lengths - 1, 0)[:, None], 1)[:, 0]
    before = jnp.where(lengths > 0, before, _NEVER)
    loss = -jnp.logaddexp(last, before)
    # PyTorch's derivative is that with respect to logits: it adds the probabilities, which a log_softmax before cancels.
    total = jnp.sum(jnp.where(jnp.arange(n_times)[:, None] < times, jnp.sum(jnp.exp(logs), 2), 0), 0)
    loss = loss + (total - lax.stop_gradient(total))
    impossible = loss > -_NEVER / 2
    loss = jnp.where(impossible, 0.0 if zero_infinity else jnp.inf, loss)
    if reduction == "mean":
        return jnp.mean(loss / jnp.maximum(lengths, 1))
    return jnp.sum(loss) if reduction == "sum" else loss


_ctc = family("CtcLoss", _ctc_of)


def _lengths(x: Any) -> np.ndarray:
    return np.asarray(array_of(x) if isinstance(x, Tensor) else x).astype(np.int64).reshape(-1)


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean",
             zero_infinity: bool = False) -> Tensor:
    """Minus the logarithm of the probability of label sequences, summed over all alignments with the times.

    ``log_probs`` is (time, batch, class); ``targets`` is (batch, length), or all sequences one after the other.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    single = log_probs.ndim == 2
    logs = log_probs.unsqueeze(1) if single else log_probs
    times, lengths = _lengths(input_lengths), _lengths(target_lengths)
    n_times, batch, classes = logs.shape
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    for name, sizes in (("input_lengths", times), ("target_lengths", lengths)):
        if len(sizes) != batch:
            raise RuntimeError(f"{name} must be of size batch_size")
    values = np.asarray(array_of(targets))
    longest = int(lengths.max(initial=0))
    if values.ndim == 1:
        if lengths.sum() != values.size:
            raise RuntimeError(f"Expected tensor to have size {lengths.sum()} at dimension 0, but got size {values.size} for argument "
                               "#2 'targets' (while checking arguments for ctc_loss_allocate_outputs)")
        starts = np.cumsum(lengths) - lengths
        places = np.minimum(starts[:, None] + np.arange(longest), max(values.size - 1, 0))
        values = values[places] if values.size else np.zeros((batch, longest), np.int64)
    elif values.shape[1] < longest:
        raise RuntimeError(f"Expected tensor to have size at least {longest} at dimension 1, but got size {values.shape[1]} for "
                           "argument #2 'targets' (while checking arguments for ctc_loss_allocate_outputs)")
    if times.max(initial=0) > n_times:
        raise RuntimeError(f"Expected input_lengths to have value at most {n_times}, but got value {times.max()} (while checking "
                           "arguments for ctc_loss_allocate_outputs)")
    # What stands behind a sequence is a label that no path of it reaches.
    values = np.where(np.arange(values.shape[1]) < lengths[:, None], values, blank).astype(np.int64)
    out = apply(_ctc(blank, reduction, zero_infinity), (logs, wrap(values), wrap(times), wrap(lengths)))
    return out.squeeze(0) if single and reduction == "none" else out
