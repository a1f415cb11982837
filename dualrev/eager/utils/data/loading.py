"""Batches of examples: how they are collated, and the loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.creation import tensor
from dualrev.eager.ops.generator import Generator
from dualrev.eager.ops.joining import stack
from dualrev.eager.utils.data.datasets import Examples, IterableDataset, Subset, TensorDataset
from dualrev.eager.utils.data.samplers import BatchSampler, Indices, RandomSampler, SequentialSampler


def default_collate(batch: Sequence[Any]) -> Any:
    """Examples as one batch: tensors are stacked, numbers become a tensor, containers keep their structure.

    Raises:
      TypeError: the examples hold something else.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(batch)
    if isinstance(first, (np.ndarray, np.generic)):
        return tensor(np.stack(batch))
    if isinstance(first, float):
        return tensor(np.asarray(batch, np.float64))
    if isinstance(first, (bool, int)):
        return tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return {k: default_collate([example[k] for example in batch]) for k in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*[default_collate(column) for column in zip(*batch, strict=True)])
    if isinstance(first, (list, tuple)):
        if any(len(example) != len(first) for example in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        return [default_collate(column) for column in zip(*batch, strict=True)]
    raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
                    f"{type(first)}\ngive DataLoader a collate_fn")


def default_convert(data: Any) -> Any:
    """An example with tensors in place of arrays of numbers; containers keep their structure, and anything else stays."""
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind not in "biufc" else tensor(data)
    if isinstance(data, Mapping):
        return type(data)({k: default_convert(x) for k, x in data.items()})  # type: ignore[call-arg]
    if isinstance(data, tuple):
        parts = [default_convert(x) for x in data]
        return type(data)(*parts) if hasattr(data, "_fields") else parts
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return [default_convert(x) for x in data]
    return data


def get_worker_info() -> None:
    """None: examples are read in this process, so that a dataset need not be divided among workers."""
    return


class DataLoader:
    """Batches of a dataset.

    Args:
      dataset: has ``__getitem__`` and ``__len__``, or is an :class:`IterableDataset`.
      batch_size: examples in each; None for the examples themselves.
      shuffle: whether the order is random, and another one in each epoch.
      num_workers: accepted for compatibility: examples are read in this process.
      generator: the source of the random order; by default that of the process.

    >>> from dualrev import eager as torch
    >>> rows = torch.utils.data.TensorDataset(torch.arange(5.0))
    >>> for x, in torch.utils.data.DataLoader(rows, batch_size=2):
    ...     print(x)
    tensor([0., 1.])
    tensor([2., 3.])
    tensor([4.])
    """

    def __init__(self, dataset: Examples | IterableDataset, batch_size: int | None = 1, shuffle: bool = False,
                 sampler: Indices | None = None, batch_sampler: Indices | None = None, num_workers: int = 0,
                 collate_fn: Callable[[list[Any]], Any] | None = None, pin_memory: bool = False, drop_last: bool = False,
                 generator: Generator | None = None, **_: object):
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size <= 0):
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        streams = isinstance(dataset, IterableDataset)
        for option, given in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
            if streams and given is not None:
                raise ValueError(f"DataLoader with IterableDataset: expected unspecified {option} option, but got {option}={given}")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last")
        if batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        self.dataset: Any = dataset
        self.batch_size, self.drop_last, self.generator = batch_size, drop_last, generator
        self.collate_fn = collate_fn or default_collate
        self.streams = streams
        self.sampler: Any = sampler
        if sampler is None and not self.streams:
            self.sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
        self.batch_sampler: Any = batch_sampler
        if batch_sampler is None and batch_size is not None and not self.streams:
            self.batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)

    def __len__(self) -> int:
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        if self.streams:
            yield from self._stream()
        elif self.batch_sampler is None:
            for i in self.sampler:
                yield self.dataset[i]
        else:
            for places in self.batch_sampler:
                yield self._batch(places)

    def _batch(self, places: list[int]) -> Any:
        rows = self.dataset.dataset if type(self.dataset) is Subset else self.dataset
        if type(rows) is TensorDataset and self.collate_fn is default_collate:
            # All rows by one index: the same as stacking them.
            places = [self.dataset.indices[i] for i in places] if rows is not self.dataset else places
            index = np.asarray(places)
            return [tensor(array_of(t)[index]) if not t.requires_grad else t[index.tolist()] for t in rows.tensors]
        return self.collate_fn([self.dataset[i] for i in places])

    def _stream(self) -> Iterator[Any]:
        if self.batch_size is None:
            yield from self.dataset
            return
        batch: list[Any] = []
        for example in self.dataset:
            batch.append(example)
            if len(batch) == self.batch_size:
                yield self.collate_fn(batch)
                batch = []
        if batch and not self.drop_last:
            yield self.collate_fn(batch)
