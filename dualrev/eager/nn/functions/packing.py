"""Sequences of different lengths: padded to one tensor, or packed time by time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.creation import tensor


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """Sequences in order of decreasing length, their entries time by time: ``batch_sizes[t]`` of them for time ``t``.

    >>> from dualrev import eager as torch
    >>> torch.nn.utils.rnn.pack_sequence([torch.tensor([1, 2]), torch.tensor([3])]).data
    tensor([1, 3, 2])
    """

    def __new__(cls, data: Tensor, batch_sizes: Any = None, sorted_indices: Tensor | None = None,
                unsorted_indices: Tensor | None = None) -> Self:
        if batch_sizes is None:
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The data in another dtype or on another device."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else type(self)(data, *self[1:])

    def cpu(self, *args: Any, **kwargs: Any) -> Self:
        """On the CPU."""
        return self.to("cpu", *args, **kwargs)

    def cuda(self, *args: Any, **kwargs: Any) -> Self:
        """On the GPU."""
        return self.to(*(args or ("cuda",)), **kwargs)

    def double(self) -> Self:
        """In float64."""
        return self.to(dtype=dtypes.float64)

    def float(self) -> Self:
        """In float32."""
        return self.to(dtype=dtypes.float32)

    def half(self) -> Self:
        """In float16."""
        return self.to(dtype=dtypes.float16)

    def long(self) -> Self:
        """In int64."""
        return self.to(dtype=dtypes.int64)

    def int(self) -> Self:
        """In int32."""
        return self.to(dtype=dtypes.int32)

    @property
    def is_cuda(self) -> bool:
        """Whether the data are on a GPU."""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The inverse of a permutation; None of None."""
    return None if permutation is None else permutation.argsort()


def _placed_of(*arrays: jax.Array) -> jax.Array:
    *sequences, value, first, left = arrays
    longest = max(x.shape[0] for x in sequences)
    padded = []
    for x in sequences:
        missing = longest - x.shape[0]
        ends = (missing, 0) if left else (0, missing)
        padded.append(jnp.pad(x, [ends] + [(0, 0)] * (x.ndim - 1), constant_values=jnp.asarray(value).astype(x.dtype)))
    return jnp.stack(padded, 0 if first else 1)


_pad_sequence = family("PadSequence", _placed_of)


def pad_sequence(sequences: Tensor | Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Sequences of different lengths as one tensor of (time, batch, ...), filled up with a number.

    >>> from dualrev import eager as torch
    >>> torch.nn.utils.rnn.pad_sequence([torch.tensor([1, 2]), torch.tensor([3])], batch_first=True)
    tensor([[1, 2],
            [3, 0]])
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}")
    given = list(sequences)
    if not given:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    first = given[0].shape[1:]
    for x in given:
        for d, (m, n) in enumerate(zip(first, x.shape[1:], strict=False), 1):
            if m != n:
                raise RuntimeError(f"The size of tensor a ({m}) must match the size of tensor b ({n}) at non-singleton dimension {d}\n"
                                   "sequences may differ in length, in no other size")
    return apply(_pad_sequence(batch_first, padding_side == "left"), (*given, padding_value))


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded tensor."""
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)
    return [x[: int(n)] for x, n in zip(padded_sequences, lengths, strict=True)]


def _places(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For lengths in decreasing order: the batch size of each time, and the time and the sequence of each packed entry."""
    alive = np.arange(lengths[0] if lengths.size else 0)[:, None] < lengths
    times, sequences = np.nonzero(alive)
    return alive.sum(1), times, sequences


_PACK = Op("PackPaddedSequence", lambda x, time, sequence: x[time, sequence])
_unpack = family("PadPackedSequence", lambda data, time, sequence, value, n, batch: jnp.full(
    (n, batch, *data.shape[1:]), jnp.asarray(value).astype(data.dtype)).at[time, sequence].set(data))


def pack_padded_sequence(input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> PackedSequence:  # noqa: A002
    """Pack a padded tensor of (time, batch, ...).

    Without ``enforce_sorted`` the sequences may stand in any order.
    """
    if not isinstance(lengths, Tensor):
        lengths = tensor(lengths, dtype=dtypes.int64)
    if lengths.ndim != 1:
        raise RuntimeError(f"'lengths' argument should be a 1D CPU int64 tensor, but got {lengths.ndim}D {lengths.device} "
                           f"{dtypes.type_name(array_of(lengths).dtype)} tensor")
    order = None
    sizes = np.asarray(lengths.numpy()).astype(np.int64)
    if not enforce_sorted:
        permutation = np.argsort(-sizes, kind="stable")
        order, sizes = wrap(permutation), sizes[permutation]
        input = input.index_select(0 if batch_first else 1, order)  # noqa: A001
    x = input.transpose(0, 1) if batch_first else input
    if x.numel() == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    if len(sizes) != x.shape[1]:
        raise RuntimeError(f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} (batch_size={x.shape[1]})")
    if sizes[-1] <= 0:
        raise RuntimeError("Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0")
    if (np.diff(sizes) > 0).any():
        raise RuntimeError("`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
                           "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
                           "do not need ONNX exportability.")
    if sizes[0] > x.shape[0]:
        raise RuntimeError(f"Expected all lengths to be at most {x.shape[0]}, the padded length, but got {sizes[0]}")
    batch_sizes, times, sequences = _places(sizes)
    return PackedSequence(apply(_PACK, (x, wrap(times), wrap(sequences))), wrap(batch_sizes), order)


def lengths_of(batch_sizes: Tensor) -> np.ndarray:
    """The lengths of packed sequences, in decreasing order."""
    sizes = np.asarray(batch_sizes.numpy())
    return (sizes[:, None] > np.arange(sizes[0] if sizes.size else 0)).sum(0)


def padded(data: Tensor, lengths: np.ndarray, value: float = 0.0, total: int | None = None) -> Tensor:
    """Packed data as (time, batch, ...)."""
    n = int(lengths[0]) if total is None else total
    _, times, sequences = _places(lengths)
    return apply(_unpack(n, len(lengths)), (data, wrap(times), wrap(sequences), value))


def packed(x: Tensor, lengths: np.ndarray) -> Tensor:
    """The data of (time, batch, ...) up to the lengths, packed."""
    _, times, sequences = _places(lengths)
    return apply(_PACK, (x, wrap(times), wrap(sequences)))


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """A packed sequence as one padded tensor of (time, batch, ...), with the lengths."""
    longest = sequence.batch_sizes.shape[0]
    if total_length is not None and total_length < longest:
        raise ValueError("Expected total_length to be at least the length of the longest sequence in input, but got "
                         f"total_length={total_length} and max sequence length being {longest}")
    lengths = lengths_of(sequence.batch_sizes)
    out, sizes = padded(sequence.data, lengths, padding_value, total_length), wrap(lengths)
    if batch_first:
        out = out.transpose(0, 1)
    order = sequence.unsorted_indices
    return (out, sizes) if order is None else (out.index_select(0 if batch_first else 1, order), sizes[order])


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences of different lengths."""
    lengths = tensor([x.shape[0] for x in sequences], dtype=dtypes.int64)
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences, batch_first=True), batch_first=True)
