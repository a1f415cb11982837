"""``repr`` and ``format`` of tensors, as PyTorch prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.registry import function


class _Options:
    """How tensors are printed."""

    def __init__(self) -> None:
        self.precision, self.threshold, self.edgeitems, self.linewidth = 4, 1000, 3, 80
        #: Whether exponents are written: always, never, or where numbers are far apart.
        self.sci_mode: bool | None = None


options = _Options()
_PROFILES: dict[str, tuple[int, float, int, int]] = {"default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80),
                                                     "full": (4, float("inf"), 3, 80)}


@function
def set_printoptions(precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Choose how tensors are printed: digits, the most entries that are shown whole, those at the edges, the width of lines.

    >>> from dualrev import eager as torch
    >>> torch.set_printoptions(precision=2)
    >>> torch.tensor([1.2345])
    tensor([1.23])
    >>> torch.set_printoptions(profile="default")
    """
    if profile is not None:
        options.precision, options.threshold, options.edgeitems, options.linewidth = _PROFILES[profile]  # type: ignore[assignment]
    for name, value in dict(precision=precision, threshold=threshold, edgeitems=edgeitems, linewidth=linewidth).items():
        if value is not None:
            setattr(options, name, value)
    options.sci_mode = sci_mode



def _formatter(values: np.ndarray) -> tuple[Callable[[Any], str], int]:
    """A function from an entry to text, and the width of its texts."""
    kind = values.dtype.kind
    if kind == "c":
        (real, left), (imag, right) = _formatter(values.real), _formatter(values.imag)

        def both(v: Any) -> str:
            after = imag(v.imag).lstrip() + "j"
            return real(v.real) + (after if after[0] in "+-" else "+" + after)

        return both, left + right + 1
    if kind in "biu":
        texts = [str(v) for v in values.ravel()]
        wide = max(map(len, texts), default=0)
        return lambda v: str(v).rjust(wide), wide
    finite = values[np.isfinite(values)]
    nonzero = np.abs(finite[finite != 0]).astype(np.float64)
    is_whole = bool(np.all(finite == np.ceil(finite)))
    is_scientific = nonzero.size > 0 and (nonzero.max() / nonzero.min() > 1000 or nonzero.max() > 1e8
                                          or (not is_whole and nonzero.min() < 1e-4))
    if is_whole:
        is_scientific = nonzero.size > 0 and (nonzero.max() / nonzero.min() > 1000 or nonzero.max() > 1e8)

    if options.sci_mode is not None:
        is_scientific = options.sci_mode

    def write(v: Any) -> str:
        if not np.isfinite(v):
            return str(float(v))
        if is_scientific:
            return f"{v:.{options.precision}e}"
        return f"{v:.0f}." if is_whole else f"{v:.{options.precision}f}"

    width = max([len(write(v)) for v in finite[finite != 0].ravel()], default=1)
    return lambda v: write(v).rjust(width), width


def _edges(values: np.ndarray) -> np.ndarray:
    """The entries of a large array that are shown."""
    for axis, n in enumerate(values.shape):
        if n > 2 * options.edgeitems:
            values = np.take(values, [*range(options.edgeitems), *range(n - options.edgeitems, n)], axis)
    return values


def _lines(values: np.ndarray, write: Callable[[Any], str], width: int, indent: int, is_short: bool) -> str:
    if values.ndim == 0:
        return write(values[()])
    n = len(values)
    places: list[int | None] = [*range(n)]
    if is_short and n > 2 * options.edgeitems:
        places = [*range(options.edgeitems), None, *range(n - options.edgeitems, n)]
    if values.ndim == 1:
        parts = [" ..." if i is None else write(values[i]) for i in places]
        per_line = max(1, (options.linewidth - indent) // (width + 2))
        rows = [", ".join(parts[i: i + per_line]) for i in range(0, len(parts), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(rows) + "]"
    parts = ["..." if i is None else _lines(values[i], write, width, indent + 1, is_short) for i in places]
    return "[" + ("," + "\n" * (values.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def text_of(t: Tensor) -> str:
    """``tensor([1., 2.], requires_grad=True)``."""
    array = array_of(t)
    extra = []
    if isinstance(array, Tracer):
        shown = f"... being traced, {dtypes.of(array.dtype).name}{list(array.shape)}"
    else:
        values = np.asarray(array)
        if values.dtype.kind == "V":
            values = values.astype(np.float32)
        is_short = values.size > options.threshold
        shown = "[]" if values.size == 0 else _lines(values, *_formatter(_edges(values) if is_short else values), 7, is_short)
        name = dtypes.of(array.dtype).name
        whole = dtypes.of(dtypes.numpy_of(dtypes.int64)).name
        if values.size == 0:
            extra.append(f"size={tuple(array.shape)}") if array.shape != (0,) else None
        if name not in (dtypes.get_default_dtype().name, whole, "bool", "complex64"):
            extra.append(f"dtype=torch.{name}")
    if dtypes.device_of(array).type != "cpu":
        extra.insert(0, f"device='{dtypes.device_of(array)}'")
    node = t.grad_fn
    if node is not None:
        extra.append(f"grad_fn=<{node.name()}>")
    elif t.requires_grad:
        extra.append("requires_grad=True")
    return _with_words(f"tensor({shown}", extra) + ")"


def _with_words(text: str, extra: list[str]) -> str:
    """The entries with what is said after them, on lines of their own where a line would get too long."""
    length = len(text) - text.rfind("\n") + 1
    for words in extra:
        if length + len(words) + 2 > options.linewidth:
            text += ",\n" + " " * 7 + words
            length = 7 + len(words)
        else:
            text += ", " + words
            length += len(words) + 2
    return text


def _formatted(t: Tensor, spec: str) -> str:
    if t.ndim == 0 and not isinstance(array_of(t), Tracer):
        return format(t.item(), spec)
    if spec:
        raise TypeError(f"unsupported format string passed to {type(t).__name__}.__format__")
    return str(t)


setattr(Tensor, "__repr__", text_of)  # noqa: B010
setattr(Tensor, "__format__", _formatted)  # noqa: B010
