"""Cases of ``dualrev/rules/conv.py`` and ``dualrev/rules/window.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cases import RC, Case, Maker, bind, case, constant, distinct, normal, tied
from jax import lax

SINGLE = ("float32", "float16", "bfloat16")


def conv(x: Maker, w: Maker, label: str, strides: Sequence[int] = (1,), padding: Any = "VALID",
         dtypes: Sequence[str] = ("float64",), **kwargs: Any) -> Case:
    return case("conv_general_dilated", lambda x, w: lax.conv_general_dilated(x, w, strides, padding, **kwargs), x, w,
                dtypes=dtypes, label=label)


NWC, NHWC = ("NWC", "WIO", "NWC"), ("NHWC", "HWIO", "NHWC")

CONVOLUTIONS = [
    conv(normal(2, 3, 7), normal(4, 3, 3), "valid", dtypes=(*RC, *SINGLE)),
    conv(normal(2, 3, 7), normal(4, 3, 2), "same", (2,), "SAME"),
    conv(normal(1, 2, 7), normal(1, 2, 3), "asymmetric padding", (3,), [(1, 3)]),
    conv(normal(1, 2, 9), normal(3, 2, 3), "negative padding", (2,), [(-2, -1)]),
    conv(normal(1, 2, 9), normal(3, 2, 2), "padding of both signs", (1,), [(3, -2)]),
    conv(normal(1, 2, 4), normal(3, 2, 3), "padding wider than the kernel", (2,), [(5, 4)]),
    conv(normal(1, 2, 5), normal(3, 2, 3), "dilated input", (1,), [(1, 2)], lhs_dilation=(3,)),
    conv(normal(1, 2, 9), normal(3, 2, 3), "dilated kernel", (1,), [(1, 2)], rhs_dilation=(3,)),
    conv(normal(2, 2, 5), normal(3, 2, 3), "all dilations", (3,), [(-1, 4)], lhs_dilation=(2,), rhs_dilation=(2,), dtypes=RC),
    conv(normal(2, 7, 3), normal(3, 3, 4), "channels last", (2,), [(1, 1)], dimension_numbers=NWC),
    conv(normal(3, 7, 2), normal(4, 3, 2), "input feature first", (2,), "VALID", dimension_numbers=("CWN", "OIW", "WNC")),
    conv(normal(2, 6, 7), normal(4, 3, 3), "two feature groups", (2,), [(1, 1)], feature_group_count=2),
    conv(normal(1, 4, 5), normal(8, 1, 3), "depthwise", (1,), "SAME", feature_group_count=4, dtypes=RC),
    conv(normal(2, 5, 6), normal(3, 2, 9), "feature groups, channels last", (1,), [(2, -1)], dimension_numbers=NWC,
         feature_group_count=3),
    conv(normal(4, 3, 7), normal(4, 3, 3), "two batch groups", (2,), [(1, 1)], batch_group_count=2),
    conv(normal(6, 5, 2), normal(3, 2, 9), "batch groups, channels last", (1,), [(0, 2)], dimension_numbers=NWC,
         batch_group_count=3, rhs_dilation=(2,)),
    conv(normal(2, 5, 4, 3), normal(2, 3, 3, 2), "two dimensions", (2, 1), "SAME", dimension_numbers=NHWC),
    conv(normal(1, 2, 5, 4), normal(3, 2, 1, 3), "two dimensions, mixed", (1, 2), [(-1, 1), (2, 0)], lhs_dilation=(2, 1),
         rhs_dilation=(1, 2)),
    conv(normal(1, 2, 3, 4, 3), normal(2, 2, 2, 1, 2), "three dimensions", (1, 2, 1), "SAME"),
    conv(normal(2, 3, 7), normal(4, 3, 5), "few outputs", (2,), [(1, -1)], dtypes=RC),
    conv(normal(2, 3, 4), normal(4, 3, 5), "few outputs, all dilations", (3,), [(2, 3)], lhs_dilation=(2,), rhs_dilation=(2,)),
    conv(normal(2, 5, 6, 3), normal(4, 3, 3, 2), "few outputs, two dimensions", (2, 1), [(0, 0), (-1, 0)], dimension_numbers=NHWC),
    conv(normal(2, 3), normal(4, 3), "no spatial dimension", (), []),
    conv(normal(1, 1, 1), normal(1, 1, 1), "all of size 1"),
    conv(normal(0, 2, 5), normal(3, 2, 2), "no batch"),
    conv(normal(1, 2, 2), normal(3, 2, 4), "no output"),
    conv(normal(1, 2, 5), normal(0, 2, 2), "no output feature"),
    conv(normal(2, 3, 7), normal(4, 3, 3), "wider result", preferred_element_type="float32", dtypes=("bfloat16",)),
    conv(normal(2, 3, 7), normal(4, 3, 3), "double result", (2,), preferred_element_type="float64", dtypes=("float32",)),
    conv(normal(1, 2, 7), constant(normal(3, 2, 3)), "constant kernel", (2,)),
    conv(constant(normal(1, 2, 7)), normal(3, 2, 3), "constant input", (2,)),
    case("conv_general_dilated", lambda x: lax.conv_general_dilated(x, x, (1,), "SAME"), normal(3, 3, 3), label="with itself"),
]

Window = Callable[..., Any]


def window_sum(*args: Any) -> Window:
    return lambda x: lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *args)


def window_max(*args: Any) -> Window:
    return lambda x: lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *args)


def window_min(*args: Any) -> Window:
    return lambda x: lax.reduce_window(x, np.array(np.inf, x.dtype), lax.min, *args)


#: label, shape, and (window, strides, padding, base dilation, window dilation)
FRAMES: list[tuple[str, tuple[int, ...], tuple[Any, ...]]] = [
    ("valid", (5, 4), ((2, 3), (1, 1), "VALID")),
    ("same", (5, 4), ((2, 3), (2, 2), "SAME")),
    ("pool", (2, 6, 4, 3), ((1, 2, 2, 1), (1, 2, 2, 1), "VALID")),
    ("strides that leave a rest", (8,), ((2,), (3,), "VALID")),
    ("asymmetric padding", (5,), ((3,), (2,), [(2, 1)])),
    ("dilated base", (4, 3), ((2, 3), (1, 2), [(1, 1), (0, 2)], (2, 1), (1, 1))),
    ("one window over all", (3, 4), ((3, 4), (1, 1), "VALID")),
    ("windows of size 1", (3, 2), ((1, 1), (1, 2), "VALID")),
    ("size 1", (1,), ((1,), (1,), "VALID")),
    ("size 0", (0, 3), ((1, 2), (1, 1), "VALID")),
    ("no output", (2,), ((3,), (1,), "VALID")),
]
#: jax transposes none of these for max and min; they are held against their own push there.
HARD_FRAMES: list[tuple[str, tuple[int, ...], tuple[Any, ...]]] = [
    ("negative padding", (7,), ((2,), (2,), [(-1, -2)])),
    ("dilated window", (7, 3), ((3, 2), (1, 1), [(1, 0), (0, 0)], (1, 1), (2, 1))),
    ("all dilations", (5,), ((3,), (2,), [(3, -1)], (2,), (3,))),
]

WINDOWS = [
    *(case("reduce_window_sum", window_sum(*frame), normal(*shape), dtypes=RC, label=label)
      for label, shape, frame in [*FRAMES, *HARD_FRAMES]),
    case("reduce_window_sum", window_sum((2, 2), (1, 1), "SAME"), normal(3, 4), dtypes=SINGLE, label="low precision"),
    *(case("reduce_window_max", window_max(*frame), distinct(*shape), label=label) for label, shape, frame in FRAMES),
    *(case("reduce_window_min", window_min(*frame), distinct(*shape), label=label) for label, shape, frame in FRAMES),
    *(case("reduce_window_max", window_max(*frame), distinct(*shape), label=label, reverse=False)
      for label, shape, frame in HARD_FRAMES),
    *(case("reduce_window_min", window_min(*frame), distinct(*shape), label=label, reverse=False)
      for label, shape, frame in HARD_FRAMES),
    case("reduce_window_max", window_max((2, 3), (1, 1), "SAME"), tied(5, 6), dtypes=("float64", *SINGLE), label="ties"),
    case("reduce_window_min", window_min((2, 3), (1, 1), "SAME"), tied(5, 6), dtypes=("float64", *SINGLE), label="ties"),
    case("reduce_window_max", lambda x: window_max((2,), (1,), "SAME")(x * x * x), distinct(6), label="curved"),
    case("reduce_window_min", lambda x: window_min((2,), (1,), "SAME")(x * x * x), distinct(6), label="curved"),
]


def gather(select: Any, window: tuple[int, ...], strides: tuple[int, ...], padding: Any, base: tuple[int, ...],
           dilation: tuple[int, ...]) -> Window:
    return bind("select_and_gather_add", select_prim=select, window_dimensions=window, window_strides=strides,
                padding=padding, base_dilation=base, window_dilation=dilation)


def scatter(select: Any, window: tuple[int, ...], strides: tuple[int, ...], padding: Any) -> Window:
    return bind("select_and_scatter_add", select_prim=select, window_dimensions=window, window_strides=strides,
                padding=padding)


NONE = ((0, 0), (0, 0))
SELECTIONS = [
    case("select_and_gather_add", gather(lax.ge_p, (2, 2), (1, 2), ((1, 0), (0, 1)), (1, 1), (1, 1)), normal(4, 5),
         distinct(4, 5)),
    case("select_and_gather_add", gather(lax.le_p, (2, 2), (2, 1), NONE, (2, 1), (1, 1)), normal(4, 5), distinct(4, 5),
         label="smallest"),
    case("select_and_gather_add", gather(lax.ge_p, (2, 2), (1, 1), NONE, (1, 1), (1, 1)), normal(3, 3), tied(3, 3),
         label="ties"),
    case("select_and_gather_add", gather(lax.ge_p, (2, 2), (1, 1), NONE, (1, 1), (2, 1)), normal(4, 3), distinct(4, 3),
         label="dilated window", reverse=False),
    case("select_and_gather_add", gather(lax.ge_p, (2, 2), (1, 1), NONE, (1, 1), (1, 1)), normal(0, 3), distinct(0, 3),
         label="size 0"),
    case("select_and_scatter_add", scatter(lax.ge_p, (2, 2), (1, 2), ((1, 0), (0, 1))), normal(4, 3), distinct(4, 5)),
    case("select_and_scatter_add", scatter(lax.le_p, (2, 2), (2, 1), NONE), normal(2, 4), distinct(4, 5), label="smallest"),
    case("select_and_scatter_add", scatter(lax.ge_p, (2, 2), (1, 1), NONE), normal(2, 2), tied(3, 3), label="ties"),
    case("select_and_scatter_add", scatter(lax.ge_p, (1, 1), (1, 1), NONE), normal(1, 1), distinct(1, 1), label="size 1"),
]

CASES = [*CONVOLUTIONS, *WINDOWS, *SELECTIONS]
