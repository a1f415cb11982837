"""How functions get their names: in the module, on tensors, and in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

#: Functions that stand in the module, by name.
FUNCTIONS: dict[str, Callable[..., Any]] = {}


def function(fun: F) -> F:
    """A function of the module."""
    FUNCTIONS[fun.__name__] = fun
    return fun


def both(fun: F) -> F:
    """A function of the module that is a method of tensors too."""
    setattr(Tensor, fun.__name__, fun)
    return function(fun)


def method(fun: F) -> F:
    """A method of tensors."""
    setattr(Tensor, fun.__name__, fun)
    return fun


def alias(name: str, fun: Callable[..., Any]) -> None:
    """A second name of a function and method."""
    FUNCTIONS[name] = fun
    if hasattr(Tensor, fun.__name__):
        setattr(Tensor, name, fun)


def renamed(fun: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    fun.__name__ = fun.__qualname__ = name
    fun.__doc__ = doc
    return fun


def unary(name: str, op: Op) -> Callable[[Any], Tensor]:
    """Make a function, a method and an in-place method of an operation on one tensor."""
    from dualrev.eager.graph.inplace import change

    def entrywise(input: Tensor) -> Tensor:  # noqa: A002
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}\n"
                            "torch.tensor(value) makes one")
        return apply(op, (input,))

    def in_place(self: Tensor) -> Tensor:
        return change(self, op, ())

    both(renamed(entrywise, name, f"{name} of each entry."))
    method(renamed(in_place, f"{name}_", f"{name} of each entry, in place."))
    return entrywise


def dim_of(dim: int, ndim: int) -> int:
    """A dimension counted from the front.

    Raises:
      IndexError: there is no such dimension.
    """
    bound = max(ndim, 1)
    if not -bound <= dim < bound:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], but got {dim})")
    return dim % bound


def dims_of(dim: Any, ndim: int) -> tuple[int, ...] | None:
    """Dimensions counted from the front; None is all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return None
    if isinstance(dim, (list, tuple)):
        return tuple([dim_of(d, ndim) for d in dim])
    return (dim_of(dim, ndim),)


def broadcasting(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of two arrays that says in PyTorch's words why their shapes do not fit."""
    def checked(x: Any, y: Any) -> Any:
        a, b = getattr(x, "shape", ()), getattr(y, "shape", ())
        n = max(len(a), len(b))
        sizes = list(enumerate(zip((1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b, strict=True)))
        for i, (m, k) in reversed(sizes):
            if m != k and 1 not in (m, k):
                raise RuntimeError(f"The size of tensor a ({m}) must match the size of tensor b ({k}) at non-singleton dimension {i}\n"
                                   f"the shapes are {list(a)} and {list(b)}")
        return fun(*promoted(x, y))

    return checked


def promoted(x: Any, y: Any) -> tuple[Any, Any]:
    """Two operands, with PyTorch's promotion where jax's differs.

    A Python float makes an integer tensor the default float, and a tensor without dimensions does not widen one with dimensions.
    """
    return _fitted(x, y), _fitted(y, x)


def _alike(kind: str, other: str) -> bool:
    """Whether both are real floats, of which numpy calls narrow ones V, or both complex."""
    return (kind == "c") == (other == "c") and other in "fcV"


def _fitted(a: Any, b: Any) -> Any:
    """One operand, beside the other."""
    if not hasattr(a, "dtype"):
        return a
    kind, is_number = a.dtype.kind, isinstance(b, float) or (getattr(b, "weak_type", False) and b.dtype.kind == "f")
    if kind in "biu" and is_number:
        return a.astype(dtypes.get_default_dtype().numpy)
    if kind in "fcV" and getattr(b, "ndim", 0) > a.ndim == 0 and not getattr(a, "weak_type", False) and _alike(kind, b.dtype.kind):
        return a.astype(b.dtype)
    return a
