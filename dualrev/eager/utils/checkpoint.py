"""Checkpointing, less memory for more time: ``torch.utils.checkpoint``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from dualrev.eager.autograd.graph import saved_tensors_hooks
from dualrev.eager.core.modes import enable_grad
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.generator import default_generator

R = TypeVar("R")
T = TypeVar("T")


def checkpoint(function: Callable[..., R], *args: object, use_reentrant: bool | None = None, preserve_rng_state: bool = True,
               context_fn: object = None, determinism_check: str = "default", debug: bool = False, early_stop: bool = True,
               **kwargs: object) -> R:
    """Call a function without keeping its residuals; backward recomputes them.

    Args:
      function: called again in backward, where it must run the same operations.
      use_reentrant: accepted for compatibility.
      preserve_rng_state: whether the recomputation draws the same random numbers.
      determinism_check, early_stop: accepted for compatibility; the number of saved values is always checked.

    Raises:
      NotImplementedError: ``debug`` or ``context_fn`` is given.

    >>> from dualrev import eager as torch
    >>> from dualrev.eager.utils.checkpoint import checkpoint
    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> checkpoint(lambda x: x.exp().sin(), x).backward()
    """
    if debug or context_fn is not None:
        raise NotImplementedError("torch.utils.checkpoint: debug=True and context_fn= are not offered")
    seed = array_of(default_generator.state()) if preserve_rng_state else None
    again: list[Tensor] = []
    count = [0]

    def pack(_: Tensor) -> int:
        count[0] += 1
        return count[0] - 1

    def unpack(i: int) -> Tensor:
        if not again:
            again.extend(recomputed())
        if i >= len(again):
            raise RuntimeError("torch.utils.checkpoint: A different number of tensors was saved during the original forward and "
                               f"recomputation.\nNumber of tensors saved during forward: {count[0]}\n"
                               f"Number of tensors saved during recomputation: {len(again)}")
        return again[i]

    def recomputed() -> list[Tensor]:
        kept: list[Tensor] = []
        state = default_generator._state
        if seed is not None:
            default_generator._state = wrap(seed)
        try:
            with enable_grad(), saved_tensors_hooks(lambda t: kept.append(t), lambda x: x):
                function(*[a.detach().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in args], **kwargs)
        finally:
            default_generator._state = state
        return kept

    with saved_tensors_hooks(pack, unpack):
        return function(*args, **kwargs)


def checkpoint_sequential(functions: Iterable[Callable[[T], T]], segments: int, input: T, **kwargs: Any) -> T:  # noqa: A002
    """Call modules in sequence, in segments, each of them checkpointed."""
    modules = list(functions)
    size = -(-len(modules) // segments)
    for start in range(0, len(modules), size):
        def run(x: T, part: Sequence[Callable[[T], T]] = modules[start: start + size]) -> T:
            for module in part:
                x = module(x)
            return x

        input = checkpoint(run, input, **kwargs)  # noqa: A001
    return input


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """A block for PyTorch's choice to stop a recomputation early: the numbers don't depend on it."""
    yield


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """A block in which checkpoints record what they run, in PyTorch.

    Raises:
      NotImplementedError: ``enabled`` is true.
    """
    if enabled:
        raise NotImplementedError("torch.utils.checkpoint: set_checkpoint_debug_enabled(True) is not offered")
    yield
