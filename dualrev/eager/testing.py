"""``torch.testing``: whether results are close, with an error that says where they are not; and random tensors to try."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops import creation as make
from dualrev.eager.ops import sampling
from dualrev.eager.ops.arguments import shape_from

#: By dtype, the relative and the absolute tolerance; those of other dtypes are zero.
_TOLERANCES = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "complex64": (1.3e-6, 1e-5),
               "float64": (1e-7, 1e-7), "complex128": (1e-7, 1e-7)}
#: What a caller gives in place of the text of the error, or to make one of it.
Message = str | Callable[[str], str] | None


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None, atol: float | None = None,
                 equal_nan: bool = False, check_device: bool = True, check_dtype: bool = True, check_layout: bool = True,
                 check_stride: bool = False, msg: Message = None) -> None:
    """Raise where ``|actual - expected| > atol + rtol * |expected|``, in tensors, arrays, numbers, or lists and dicts of these.

    Without tolerances, those of the wider of both dtypes are taken: 1.3e-6 and 1e-5 for float32, zero for integers.
    ``check_device``, ``check_layout`` and ``check_stride`` are accepted: there is one layout.

    Raises:
      AssertionError: values, shapes, dtypes or structures differ; it names the worst entries.
      ValueError: one tolerance is given and not the other.
      TypeError: the values are of kinds that are not compared.

    >>> from dualrev import eager as torch
    >>> torch.testing.assert_close(torch.ones(2), torch.ones(2) + 1e-6)
    """
    if (rtol is None) != (atol is None):
        missing = "rtol" if rtol is None else "atol"
        raise ValueError(f"Both 'rtol' and 'atol' must be either specified or omitted, but got no {missing}.")
    given = None if rtol is None or atol is None else (rtol, atol)
    if not allow_subclasses and type(actual) is not type(expected):
        raise TypeError(f"Except for subclasses, types must be the same: got {type(actual)} and {type(expected)}.")
    _Comparison(given, equal_nan, check_dtype, msg).compare(actual, expected, ())


class _Comparison:
    """A comparison with its tolerances; ``where`` is the path to a part of nested lists and dicts."""

    def __init__(self, tolerances: tuple[float, float] | None, equal_nan: bool, check_dtype: bool, msg: Message):
        self.tolerances, self.equal_nan, self.check_dtype, self.msg = tolerances, equal_nan, check_dtype, msg

    def fail(self, text: str, where: tuple[Any, ...]) -> None:
        if where:
            text += "\n\nThe failure occurred for item " + "".join([f"[{key!r}]" for key in where])
        raise AssertionError(text if self.msg is None else self.msg if isinstance(self.msg, str) else self.msg(text))

    def compare(self, actual: Any, expected: Any, where: tuple[Any, ...]) -> None:
        if actual is None and expected is None:
            return
        kinds = [_kind(x) for x in (actual, expected)]
        if kinds[0] is None or kinds[0] != kinds[1]:
            raise TypeError(f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.")
        if kinds[0] == "sequence":
            if len(actual) != len(expected):
                self.fail(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", where)
            for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
                self.compare(a, b, (*where, i))
        elif kinds[0] == "mapping":
            self._keys(actual, expected, where)
            for key in expected:
                self.compare(actual[key], expected[key], (*where, key))
        elif kinds[0] == "flag":
            if bool(actual) is not bool(expected):
                self.fail(f"Booleans mismatch: {actual} is not {expected}", where)
        elif kinds[0] == "number":
            if self.check_dtype and type(actual) is not type(expected):
                self.fail(f"The (d)types do not match: {type(actual)} != {type(expected)}.", where)
            self._number(actual, expected, _tolerances(*[dtypes.of(np.dtype(type(x))) for x in (actual, expected)]), where)
        else:
            a, b = [x if isinstance(x, Tensor) else wrap(np.asarray(x)) for x in (actual, expected)]
            self._tensors(a, b, where)

    def _keys(self, actual: Mapping[Any, Any], expected: Mapping[Any, Any], where: tuple[Any, ...]) -> None:
        missing, more = set(expected) - set(actual), set(actual) - set(expected)
        if missing or more:
            text = "The keys of the mappings do not match:"
            text += f"\nMissing keys in the actual mapping: {sorted(missing)}" if missing else ""
            text += f"\nAdditional keys in the actual mapping: {sorted(more)}" if more else ""
            self.fail(text, where)

    def _tensors(self, actual: Tensor, expected: Tensor, where: tuple[Any, ...]) -> None:
        if actual.shape != expected.shape:
            self.fail(f"The values for attribute 'shape' do not match: {actual.shape!r} != {expected.shape!r}.", where)
        if self.check_dtype and actual.dtype != expected.dtype:
            self.fail(f"The values for attribute 'dtype' do not match: {actual.dtype} != {expected.dtype}.", where)
        tolerances = _tolerances(actual.dtype, expected.dtype)
        a, b = [np.asarray(array_of(x)) for x in (actual, expected)]
        if not a.ndim:
            self._number(a.item(), b.item(), tolerances, where)
            return
        wide = np.result_type(_wide(a), _wide(b))
        rtol, atol = self.tolerances or tolerances
        is_close = np.isclose(a.astype(wide), b.astype(wide), rtol, atol, self.equal_nan)
        if is_close.all():
            return
        with np.errstate(all="ignore"):
            gaps = np.abs(a.astype(wide) - b.astype(wide))
            ratios = gaps / np.abs(b.astype(wide))
        if a.dtype.kind in "biu" and b.dtype.kind in "biu":
            ratios = ratios.astype(np.float32)  # PyTorch's quotient of integers
        n, of = int((~is_close).sum()), is_close.size
        lines = [f"Tensor-likes are not {'close' if rtol or atol else 'equal'}!\n", f"Mismatched elements: {n} / {of} ({n / of:.1%})"]
        for name, values, allowed in (("absolute", gaps, atol), ("relative", ratios, rtol)):
            at = np.unravel_index(int(np.argmax(np.where(is_close, 0, values))), values.shape)
            worst = values[at].item()
            shown = int(worst) if name == "absolute" and a.dtype.kind in "biu" and b.dtype.kind in "biu" else worst
            lines.append(f"Greatest {name} difference: {shown} at index {tuple([int(i) for i in at])}"
                         + (f" (up to {allowed} allowed)" if rtol or atol else ""))
        self.fail("\n".join(lines), where)

    def _number(self, actual: Any, expected: Any, tolerances: tuple[float, float], where: tuple[Any, ...]) -> None:
        rtol, atol = self.tolerances or tolerances
        gap = abs(actual - expected)
        are_nan = self.equal_nan and cmath.isnan(actual) and cmath.isnan(expected)
        are_finite = cmath.isfinite(actual) and cmath.isfinite(expected)
        if actual == expected or are_nan or (are_finite and gap <= atol + rtol * abs(expected)):
            return
        is_close = "close" if rtol or atol else "equal"
        ratio = gap / abs(expected) if expected else float("inf")
        allowed = [f" (up to {x} allowed)" if rtol or atol else "" for x in (atol, rtol)]
        self.fail(f"Scalars are not {is_close}!\n\nExpected {expected} but got {actual}.\nAbsolute difference: {gap}{allowed[0]}\n"
                  f"Relative difference: {ratio}{allowed[1]}", where)


def _kind(x: Any) -> str | None:
    """What a value is compared as; None where it is not."""
    if isinstance(x, Tensor):
        return "tensor"
    if isinstance(x, (np.ndarray, np.generic)):
        return "array"
    if isinstance(x, bool):
        return "flag"
    if isinstance(x, (int, float, complex)):
        return "number"
    if isinstance(x, Mapping):
        return "mapping"
    return "sequence" if isinstance(x, Sequence) and not isinstance(x, (str, bytes)) else None


def _wide(x: np.ndarray) -> np.dtype:
    """The dtype in which entries are compared."""
    if x.dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.dtype(np.complex128 if x.dtype == np.complex128 else np.float64 if x.dtype == np.float64 else np.float32
                    if x.dtype.kind != "c" else np.complex64)


def _tolerances(*kinds: DType) -> tuple[float, float]:
    """The relative and absolute tolerances of the dtype that has the larger ones."""
    found = [_TOLERANCES.get(str(kind).rpartition(".")[2], (0.0, 0.0)) for kind in kinds]
    return max([r for r, _ in found]), max([a for _, a in found])


def make_tensor(*shape: Any, dtype: DType, device: Device, low: float | None = None, high: float | None = None,
                requires_grad: bool = False, noncontiguous: bool = False, exclude_zero: bool = False, memory_format: Any = None
                ) -> Tensor:
    """A tensor of a dtype with random entries from ``low`` to ``high``: by default from -9 to 9, or 0 and 1 for ``bool``.

    ``noncontiguous`` and ``memory_format`` are accepted: there is one layout.

    Raises:
      ValueError: the interval is empty, or a tensor of a dtype that is not floating shall require grad.
    """
    sizes = shape_from("make_tensor", shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)
    kind = dtypes.numpy_of(dtype).kind
    if requires_grad and kind in "biu":
        raise ValueError(f"`requires_grad=True` is not supported for boolean and integral dtypes, but got dtype={dtype!r}")
    bottom, top = (0, 2) if kind == "b" else (0 if low is None else low, 10 if high is None else high) if kind == "u" else (
        -9 if low is None else low, (10 if kind == "i" else 9) if high is None else high)
    if bottom >= top:
        raise ValueError(f"`low` must be less than `high`, but got {low} >= {high}")
    if kind in "biu":
        found = sampling.randint(int(bottom), int(top), sizes).to(dtype)
    else:
        parts = [np.asarray(array_of(sampling.rand(sizes))) * (top - bottom) + bottom for _ in range(2 if kind == "c" else 1)]
        found = make.tensor(parts[0] if kind != "c" else parts[0] + 1j * parts[1]).to(dtype)
    if exclude_zero:
        found = found.masked_fill(found == 0, 1)
    return found.requires_grad_(requires_grad)
