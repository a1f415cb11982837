"""Evaluation of functions of arrays: by numpy where the program is small, and compiled otherwise.

Small arrays are numpy's, large ones and those of other devices jax's; both stand in storages, and either kind is given to either
evaluation.  Which one runs depends on the shapes and dtypes alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from dualrev._jax.avals import ShapedArray
from dualrev._jax.jaxprs import ClosedJaxpr, stage
from dualrev._jax.traces import Tracer, evaluating
from dualrev.eager.core.caches import BOUND, caches
from dualrev.eager.core.modes import mode
from dualrev.eager.host.programs import TracedError, host_program

R = TypeVar("R")
#: Arrays of at most so many bytes are kept as numpy's when they are made.
SMALL = 2 ** 20
_SCALARS: dict[type, np.dtype] = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64),
                                  complex: np.dtype(np.complex128)}
_ndarray = np.ndarray


def wide() -> Any:
    """A block in which jax has 64 bits, as dtypes of tensors say: jax's own setting stays as it is for everything else.

    Inside a function of arrays that jax traces without 64 bits nothing changes: its program is compiled without them.
    """
    return contextlib.nullcontext() if mode.narrow else jax.enable_x64(True)


@contextlib.contextmanager
def known_values() -> Iterator[None]:
    """A block for operations on values that are not traced, which have their dtypes in any case."""
    before, mode.narrow = mode.narrow, False
    try:
        with jax.enable_x64(True):
            yield
    finally:
        mode.narrow = before


def aval_of(x: Any) -> ShapedArray:
    """The type of an array or a number, with all of its bits; a Python number is weakly typed."""
    dtype = _SCALARS.get(type(x))
    if dtype is not None:
        return ShapedArray((), dtype, weak_type=True)
    if isinstance(x, Tracer):
        return jax.typeof(x)
    return ShapedArray(x.shape, np.dtype(x.dtype), weak_type=getattr(x, "weak_type", False))


def is_on_host(x: Any) -> bool:
    """Whether numpy can read the array without a copy from a device."""
    if isinstance(x, Tracer):
        return False
    if not isinstance(x, jax.Array):
        return True
    devices = x.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def key_of(args: Sequence[Any]) -> tuple[Hashable, ...] | None:
    """The types of operands, and whether they are on the host; None where one is being traced."""
    key: list[Hashable] = []
    for a in args:
        kind: Any = type(a)
        if kind is _ndarray:
            key.append(a.dtype)
            key.append(a.shape)
        elif kind in _SCALARS:
            key.append(kind)
        elif isinstance(a, Tracer):
            return None
        else:
            key.append(a.dtype)
            key.append(a.shape)
            if getattr(a, "weak_type", False):
                key.append("weak")
            if not is_on_host(a):
                key.append("device")
    return tuple(key)


def traced(fun: Callable[..., Sequence[Any]], avals: Sequence[ShapedArray]) -> ClosedJaxpr:
    """The program of a function that returns several arrays."""
    with known_values():
        return stage(fun, avals)


def compiled(fun: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """The function compiled by jax, with 64 bits where its operands have them."""
    run = caches.jit(fun, **(settings or {"inline": True}))

    def call(*args: Any) -> Any:
        if mode.known and not _is_traced(args):
            with evaluating(), known_values():
                return run(*args)
        if mode.narrow:
            with contextlib.nullcontext() if _is_traced(args) else known_values():
                return run(*args)
        with jax.enable_x64(True):
            return run(*args)

    return call


def _is_traced(args: Sequence[Any]) -> bool:
    """Whether a leaf of the arguments is being traced."""
    return any(isinstance(x, Tracer) for x in jax.tree_util.tree_leaves(args))


def fixed(fun: Callable[..., Sequence[Any]], avals: Sequence[ShapedArray], on_host: bool = True
          ) -> tuple[bool, Callable[..., Sequence[Any]]]:
    """Whether numpy evaluates a function of operands of these types, which returns several arrays; and its evaluation."""
    host = host_program(traced(fun, avals)) if on_host else None
    slow = compiled(fun)
    if host is None:
        return False, slow

    def run(*args: Any) -> Sequence[Any]:
        try:
            return host(*args)
        except TracedError:
            return slow(*args)

    return True, run


class Evaluation:
    """A function of arrays that returns an array, or several where it has ``many``."""

    __slots__ = ("__weakref__", "_compiled", "_found", "flat", "many")

    def __init__(self, fun: Callable[..., Any], many: bool = False):
        self.many = many
        self.flat: Callable[..., Sequence[Any]] = (lambda *args: list(fun(*args))) if many else (lambda *args: [fun(*args)])
        self._compiled = compiled(fun)
        self._found: dict[Hashable, Callable[..., Any]] = {}
        caches.add(self)

    def cache_clear(self) -> None:
        """Forget all programs."""
        self._found.clear()

    def __call__(self, *args: Any) -> Any:
        key = key_of(args)
        if key is None:
            return self._compiled(*args)
        run = self._found.get(key)
        if run is None:
            run = self._make(key, args)
        return run(*args)

    def _make(self, key: tuple[Hashable, ...], args: Sequence[Any]) -> Callable[..., Any]:
        found = None
        if "device" not in key:
            found = host_program(traced(self.flat, [aval_of(a) for a in args]), not self.many)
        while len(self._found) >= BOUND:
            self._found.pop(next(iter(self._found)), None)
        run = self._found[key] = self._compiled if found is None else found
        return run


def kept(values: np.ndarray) -> Any:
    """An array that was just made, as tensors keep it: large ones are jax's."""
    if values.nbytes <= SMALL:
        return values
    with jax.enable_x64(True):
        return jax.numpy.asarray(values)


def as_jax(x: Any) -> Any:
    """An array as one of jax, with all of its bits."""
    if not isinstance(x, np.ndarray):
        return x
    with jax.enable_x64(True):
        return jax.numpy.asarray(x)


def cast(x: Any, dtype: np.dtype) -> Any:
    """An array in another dtype, or itself."""
    if x.dtype == dtype:
        return x
    if mode.narrow and isinstance(x, Tracer):
        return x.astype(jax.dtypes.canonicalize_dtype(dtype))
    with jax.enable_x64(True):
        return x.astype(dtype)


class TreeEvaluation:
    """As :class:`Evaluation`, of a function of pytrees of arrays that returns one."""

    __slots__ = ("__weakref__", "_compiled", "_found", "_fun")

    def __init__(self, fun: Callable[..., Any]):
        self._fun = fun
        self._compiled = compiled(fun)
        self._found: dict[Hashable, tuple[Callable[..., Any] | None, Any]] = {}
        caches.add(self)

    def cache_clear(self) -> None:
        """Forget all programs."""
        self._found.clear()

    def __call__(self, *args: Any) -> Any:
        found = self.on_host(*args)
        return self._compiled(*args) if found is None else found[0]

    def on_host(self, *args: Any) -> tuple[Any] | None:
        """The result, where numpy evaluates the function of these operands; None where it is to be compiled."""
        leaves, tree = jax.tree_util.tree_flatten(args)
        key = key_of(leaves)
        if key is None:
            return None
        run, out_tree = self._found.get((tree, key)) or self._make(tree, key, leaves)
        return None if run is None else (jax.tree_util.tree_unflatten(out_tree, run(*leaves)),)

    def _make(self, tree: Any, key: tuple[Hashable, ...], leaves: Sequence[Any]) -> tuple[Callable[..., Any] | None, Any]:
        run: Callable[..., Any] | None = None
        out_trees: list[Any] = []

        def flat(*values: Any) -> list[Any]:
            outs, out_tree = jax.tree_util.tree_flatten(self._fun(*jax.tree_util.tree_unflatten(tree, values)))
            out_trees.append(out_tree)
            return outs

        if "device" not in key:
            run = host_program(traced(flat, [aval_of(x) for x in leaves]))
        while len(self._found) >= BOUND:
            self._found.pop(next(iter(self._found)), None)
        found = self._found[(tree, key)] = run, out_trees[0] if run is not None else None
        return found


def promoting(fun: Callable[..., R]) -> Callable[..., R]:
    """The function under jax's own promotion of shapes and dtypes; where PyTorch's differs, operations convert.

    Tensors broadcast by definition, and optimizers mix dtypes.  A user who makes jax strict asks that of functions of arrays, not of
    tensors.
    """
    @functools.wraps(fun)
    def promotes(*args: object) -> R:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return fun(*args)

    return promotes
