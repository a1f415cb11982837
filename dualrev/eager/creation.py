"""Making tensors, and taking values out of them."""

from __future__ import annotations

import functools
import itertools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax import Tracer, source, user_frame
from dualrev.eager import dtypes
from dualrev.eager.dtypes import device_of, jax_device, numpy_of
from dualrev.eager.inplace import write
from dualrev.eager.modes import mode
from dualrev.eager.names import FUNCTIONS, both, function, method
from dualrev.eager.operation import family
from dualrev.eager.shapes import _cast, shape_of
from dualrev.eager.tensors import Tensor, apply, array_of, wrap
from dualrev.eager.views import data_of


def finished(array: Any, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A new leaf."""
    if device is not None and not isinstance(array, Tracer):
        array = jax.device_put(array, jax_device(device))
    t = wrap(array)
    t._made = source()
    if mode.inference:
        t._inference = True
    if requires_grad:
        t.requires_grad_()
    return t


def _numbers(data: Any) -> Any:
    """Nested sequences with tensors among them as sequences of arrays."""
    if isinstance(data, Tensor):
        return array_of(data)
    if isinstance(data, (list, tuple)):
        return [_numbers(x) for x in data]
    return data


def _leaves(data: Any) -> list[Any]:
    return list(itertools.chain.from_iterable(map(_leaves, data))) if isinstance(data, (list, tuple)) else [data]


@function
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of the data.

    Args:
      data: a number, nested sequences of numbers, or an array.
      dtype: the default float for Python floats, and what the data has otherwise.
      device: "cpu" or "cuda".
      requires_grad: whether operations on it are recorded.

    Raises:
      ValueError: the sequences are ragged.
      RuntimeError: it is to require grad and is not of floating point.

    >>> from dualrev import eager as torch
    >>> torch.tensor([[1, 2], [3, 4.5]], requires_grad=True)
    tensor([[1.0000, 2.0000],
            [3.0000, 4.5000]], requires_grad=True)
    """
    data = _numbers(data)
    leaves = _leaves(data)
    if any(isinstance(x, Tracer) for x in leaves):
        array = jnp.asarray(data)
    elif isinstance(data, (jax.Array, np.ndarray, np.generic)):
        array = jnp.array(data, copy=True)
    else:
        try:
            values = np.asarray(jax.tree_util.tree_map(np.asarray, data) if any(isinstance(x, jax.Array) for x in leaves) else data)
        except ValueError as error:
            raise ValueError(f"expected sequence of equal length at each dim\n{error}") from None
        if values.dtype.kind == "O":
            raise RuntimeError(f"Could not infer dtype of {type(leaves[0]).__name__}")
        if (values.dtype.kind == "f" and not any(isinstance(x, (np.ndarray, np.generic, jax.Array)) for x in leaves)) or not leaves:
            values = values.astype(dtypes.get_default_dtype().numpy)
        elif values.dtype.kind == "c" and not any(isinstance(x, (np.ndarray, np.generic)) for x in leaves):
            values = values.astype(np.complex64)
        array = jnp.asarray(values, None if dtype is None else numpy_of(dtype))
    if dtype is not None:
        array = array.astype(numpy_of(dtype))
    return finished(array, requires_grad, device)


@function
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """The data as a tensor: a tensor of the same dtype stays itself."""
    if isinstance(data, Tensor) and (dtype is None or data.dtype == dtype):
        return data
    return tensor(data, dtype=dtype, device=device)


@function
def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor with a copy of an array's values: arrays of jax share no memory with numpy."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    return finished(jnp.array(ndarray))


def _float(dtype: Any) -> Any:
    return dtypes.get_default_dtype().numpy if dtype is None else numpy_of(dtype)


@function
def zeros(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros."""
    return finished(jnp.zeros(shape_of(size), _float(dtype)), requires_grad, device)


@function
def ones(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones."""
    return finished(jnp.ones(shape_of(size), _float(dtype)), requires_grad, device)


@function
def empty(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros: what is not set has a value too."""
    return zeros(*size, dtype=dtype, device=device, requires_grad=requires_grad)


@function
def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One number everywhere."""
    if dtype is None:
        kind = jnp.asarray(fill_value).dtype
        dtype = dtypes.get_default_dtype().numpy if kind.kind == "f" else kind
    return finished(jnp.full(shape_of((size,)), fill_value, numpy_of(dtype)), requires_grad, device)


@function
def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Equal steps from ``start`` up to, and without, ``end``."""
    if end is None:
        start, end = 0, start
    if dtype is None:
        dtype = dtypes.get_default_dtype() if any(isinstance(x, float) for x in (start, end, step)) else dtypes.int64
    return finished(jnp.arange(start, end, step, numpy_of(dtype)), requires_grad, device)


@function
def linspace(start: float, end: float, steps: int, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """So many numbers from ``start`` to ``end``."""
    return finished(jnp.linspace(start, end, steps, dtype=_float(dtype)), requires_grad, device)


@function
def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal."""
    return finished(jnp.eye(n, m, dtype=_float(dtype)), requires_grad, device)


# ------------------------------------------------------------------------------------------------------------------ random

class Generator:
    """A source of random numbers: a key that each draw replaces."""

    def __init__(self, device: Any = "cpu"):
        self._state: Tensor | None = None
        self._seed = 0

    def manual_seed(self, seed: int) -> Generator:
        self._seed = int(seed)
        self._state = None
        return self

    def initial_seed(self) -> int:
        return self._seed

    def key(self) -> Any:
        """A new key."""
        if self._state is None:
            self._state = wrap(jax.random.PRNGKey(self._seed))
        state, key = _split(array_of(self._state))
        write(self._state, state)
        return key


_split = jax.jit(lambda state: tuple(jax.random.split(state)), inline=True)
default_generator = Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))


@function
def manual_seed(seed: int) -> Generator:
    """Start the random numbers of the process from a seed."""
    return default_generator.manual_seed(seed)


@functools.lru_cache(maxsize=1024)
def _drawer(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any) -> Any:
    draws = dict(
        rand=lambda key: jax.random.uniform(key, shape, dtype),
        randn=lambda key: jax.random.normal(key, shape, dtype),
        randint=lambda key: jax.random.randint(key, shape, bounds[0], bounds[1], dtype),
        perm=lambda key: jax.random.permutation(key, bounds[0]).astype(dtype),
        bernoulli=lambda key: jax.random.bernoulli(key, bounds[0], shape).astype(dtype),
    )
    return jax.jit(draws[kind], inline=True)


def draw(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any, generator: Generator | None = None) -> Any:
    """Random values: uniform, normal, whole numbers, a permutation, or ones with a probability."""
    return _drawer(kind, tuple(shape), dtype, *bounds)((generator or default_generator).key())


@function
def rand(*size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers from 0 to 1."""
    return finished(draw("rand", shape_of(size), _float(dtype), generator=generator), requires_grad, device)


@function
def randn(*size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers."""
    return finished(draw("randn", shape_of(size), _float(dtype), generator=generator), requires_grad, device)


@function
def randint(low: int, high: Any, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Random whole numbers from ``low`` up to, and without, ``high``."""
    if size is None:
        low, high, size = 0, low, high
    return finished(draw("randint", shape_of((size,)), numpy_of(dtype or dtypes.int64), low, high, generator=generator), False, device)


@function
def randperm(n: int, *, generator: Any = None, dtype: Any = None) -> Tensor:
    """The numbers below ``n`` in random order."""
    return finished(draw("perm", (n,), numpy_of(dtype or dtypes.int64), n, generator=generator))


def _like(name: str) -> None:
    make = FUNCTIONS[name]

    def like(input: Tensor, *args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:  # noqa: A002
        size: tuple[Any, ...] = (tuple(input.shape), *args) if name == "full" else tuple(input.shape)
        return make(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)

    like.__name__, like.__doc__ = f"{name}_like", f"As ``{name}``, with the shape and dtype of a tensor."
    function(like)

    def new(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return make(*args, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    new.__name__, new.__doc__ = f"new_{name}", f"As ``{name}``, with the dtype of this tensor."
    method(new)


for _name in ("zeros", "ones", "empty", "full", "rand", "randn"):
    _like(_name)


def _filled(kind: str, moved: Any) -> Any:
    def fill(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Tensor:
        from dualrev.eager.inplace import check_may_change

        if mode.grad and self._requires_grad:
            check_may_change(self)
        array = array_of(self)
        write(self, moved(draw(kind, array.shape, array.dtype, generator=generator), a, b))
        return self

    return fill


Tensor.normal_ = _filled("randn", lambda z, mean, std: mean + std * z)  # type: ignore[attr-defined]
Tensor.uniform_ = _filled("rand", lambda u, low, high: low + (high - low) * u)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------------- taking out

Tensor.dtype = property(lambda self: dtypes.of(array_of(self).dtype))  # type: ignore[attr-defined]
Tensor.device = property(lambda self: device_of(array_of(self)))  # type: ignore[attr-defined]
Tensor.is_cuda = property(lambda self: self.device.type == "cuda")  # type: ignore[attr-defined]


def _set_data(self: Tensor, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
    if value._storage is self._storage:
        return  # x.data *= 2 has changed it already
    if self._view is None and value._view is None:
        version = self._counter
        self._storage = value._storage
        self._counter = version
    else:
        write(self, array_of(value))
        self._counter.version -= 1


Tensor.data = property(data_of, _set_data, doc="The value outside the graph, sharing the storage; changes do not count.")  # type: ignore[attr-defined]


def _known(self: Tensor, what: str) -> np.ndarray:
    array = array_of(self)
    if isinstance(array, Tracer):
        raise RuntimeError(f"{what} needs the value of a tensor that is being traced, at {user_frame()}\nits value is known when the "
                           "compiled program runs, not while it is compiled; use torch.where for a choice, or do this outside")
    return np.asarray(array)


@method
def item(self: Tensor) -> Any:
    """The only entry as a Python number."""
    values = _known(self, "item()")
    if values.size != 1:
        raise RuntimeError(f"a Tensor with {values.size} elements cannot be converted to Scalar")
    return values.item()


@method
def tolist(self: Tensor) -> Any:
    """The entries as nested lists."""
    return _known(self, "tolist()").tolist()


@method
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The entries as a numpy array, a copy."""
    if self.requires_grad and not force:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
    return np.array(_known(self, "numpy()"))


Tensor.jax = property(array_of, doc="The array underneath.")  # type: ignore[attr-defined]
Tensor.__array__ = lambda self, dtype=None, copy=None: np.asarray(self.numpy(), dtype)  # type: ignore[attr-defined]
Tensor.__float__ = lambda self: float(self.item())  # type: ignore[attr-defined]
Tensor.__int__ = lambda self: int(self.item())  # type: ignore[attr-defined]
Tensor.__index__ = lambda self: int(self.item())  # type: ignore[attr-defined]
Tensor.__complex__ = lambda self: complex(self.item())  # type: ignore[attr-defined]


def _truth(self: Tensor) -> bool:
    n = array_of(self).size
    if n != 1:
        raise RuntimeError("Boolean value of Tensor with " + ("no values" if n == 0 else "more than one value") + " is ambiguous\n"
                           "use .any() or .all()")
    return bool(_known(self, "a condition"))


Tensor.__bool__ = _truth  # type: ignore[attr-defined]


@method
def __len__(self: Tensor) -> int:  # noqa: N807
    if self.ndim == 0:
        raise TypeError("len() of a 0-d tensor")
    return self.shape[0]


@method
def element_size(self: Tensor) -> int:
    """Bytes of one entry."""
    return array_of(self).dtype.itemsize


@both
def is_tensor(obj: Any) -> bool:
    """Whether it is a tensor."""
    return isinstance(obj, Tensor)


@both
def is_floating_point(input: Tensor) -> bool:  # noqa: A002
    """Whether the dtype is a float."""
    return jnp.issubdtype(array_of(input).dtype, jnp.floating)


_put = family("ToCopy", lambda x, target: jax.device_put(x, target))


@method
def to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, non_blocking: bool = False, copy: bool = False) -> Tensor:
    """Another dtype or device; the tensor itself if it has both already."""
    for a in args:
        if isinstance(a, (dtypes.dtype, type)):
            dtype = a
        elif isinstance(a, (str, dtypes.device)):
            device = a
        elif isinstance(a, Tensor):
            dtype, device = a.dtype, a.device
    result = self
    if dtype is not None and numpy_of(dtype) != array_of(self).dtype:
        result = apply(_cast(numpy_of(dtype)), (result,))
    if device is not None:
        target = jax_device(device)
        array = array_of(result)
        if not isinstance(array, Tracer) and target not in array.devices():
            result = apply(_put(target), (result,))
    return result.clone() if copy and result is self else result


def _to(name: str, dtype: Any) -> None:
    setattr(Tensor, name, lambda self: self.to(dtype))


for _name in ("double", "half", "bfloat16", "long", "short"):
    _to(_name, getattr(dtypes, _name))
for _name, _dtype in dict(float=dtypes.float32, int=dtypes.int32, bool=dtypes.bool).items():
    _to(_name, _dtype)
Tensor.type_as = lambda self, other: self.to(other.dtype)  # type: ignore[attr-defined]
Tensor.cpu = lambda self: self.to("cpu")  # type: ignore[attr-defined]
Tensor.cuda = lambda self, device=None: self.to("cuda" if device is None else f"cuda:{device}")  # type: ignore[attr-defined]
