"""Lines for reductions, cumulative operations and sorting."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from cases import ALL, ALL_FLOATS, RC, Maker, case, distinct, fixed, ints, normal, scalar, tied, uniform, values
from jax import lax


def close_to_one(*shape: int) -> Maker:
    """Factors whose product stays in range in low precision."""
    return uniform(0.5, 1.5, *shape)


def sort_pairs(dimension: int, num_keys: int, is_stable: bool = True) -> Any:
    return lambda *xs: tuple(lax.sort(xs, dimension=dimension, num_keys=num_keys, is_stable=is_stable))


def top(k: int, axis: int = -1) -> Any:
    return lambda x: tuple(lax.top_k(x, k, axis=axis))


inf = np.inf

CASES = [
    case("reduce_sum", lambda x: lax.reduce_sum(x, (0,)), normal(3, 4), dtypes=ALL),
    case("reduce_sum", lambda x: lax.reduce_sum(x, (0, 2)), normal(2, 3, 4), dtypes=RC, label="two axes"),
    case("reduce_sum", lambda x: lax.reduce_sum(x, ()), normal(2, 3), label="no axes"),
    case("reduce_sum", lambda x: lax.reduce_sum(x, (1,)), normal(3, 0), label="size 0"),
    case("reduce_sum", lambda x: lax.reduce_sum(x, (0, 1)), normal(1, 1), label="size 1"),
    case("reduce_sum", lambda x: lax.reduce_sum(x, ()), scalar(1.5), label="scalar"),

    case("reduce_prod", lambda x: lax.reduce_prod(x, (1,)), close_to_one(2, 5), dtypes=ALL),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (2, 0)), normal(2, 3, 4), dtypes=RC, label="axes out of order"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0, 1)), normal(3, 3), label="all axes"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0,)), values(2.0, 0.0, -3.0, 5.0), dtypes=RC, label="one zero"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0,)), values(0.0, 2.0, 0.0, 5.0, 3.0), dtypes=RC, label="two zeros"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0,)), values(0.0, 2.0, 0.0, 0.0), label="three zeros"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (1,)), tied(4, 6), label="zeros in rows"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0,)), normal(0, 3), label="size 0"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (0,)), normal(1, 3), label="size 1"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, (1,)), normal(0, 3), label="no rows"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, ()), normal(2), label="no axes"),
    case("reduce_prod", lambda x: lax.reduce_prod(x, ()), scalar(-2.0), label="scalar"),

    case("reduce_max", lambda x: lax.reduce_max(x, (1,)), distinct(3, 4), dtypes=ALL_FLOATS),
    case("reduce_max", lambda x: lax.reduce_max(x, (0, 2)), tied(3, 2, 4), dtypes=ALL_FLOATS, label="ties"),
    case("reduce_max", lambda x: lax.reduce_max(x, (0,)), values(1.0, -inf, inf, inf), label="infinite"),
    case("reduce_max", lambda x: lax.reduce_max(x, (0,)), normal(1, 3), label="size 1"),
    case("reduce_max", lambda x: lax.reduce_max(x, (1,)), normal(0, 3), label="no rows"),
    case("reduce_max", lambda x: lax.reduce_max(x, (1,)), normal(2, 3), dtypes=("complex128",), label="complex"),
    case("reduce_max", lambda x: lax.reduce_max(x, ()), scalar(-2.0), label="scalar"),
    case("reduce_min", lambda x: lax.reduce_min(x, (1,)), distinct(3, 4), dtypes=ALL_FLOATS),
    case("reduce_min", lambda x: lax.reduce_min(x, (0, 1)), tied(3, 4), dtypes=ALL_FLOATS, label="ties"),
    case("reduce_min", lambda x: lax.reduce_min(x, (0,)), normal(1, 3), label="size 1"),

    *[line for reverse in (False, True) for line in [
        case("cumsum", lambda x, r=reverse: lax.cumsum(x, 1, r), normal(2, 5), dtypes=ALL, label=f"reverse={reverse}"),
        case("cumsum", lambda x, r=reverse: lax.cumsum(x, 0, r), normal(0, 2), label=f"size 0, reverse={reverse}"),
        case("cumsum", lambda x, r=reverse: lax.cumsum(x, 0, r), normal(1), label=f"size 1, reverse={reverse}"),

        case("cumprod", lambda x, r=reverse: lax.cumprod(x, 1, r), close_to_one(2, 3), dtypes=ALL, label=f"reverse={reverse}"),
        case("cumprod", lambda x, r=reverse: lax.cumprod(x, 0, r), normal(3, 2), label=f"axis 0, reverse={reverse}"),
        case("cumprod", lambda x, r=reverse: lax.cumprod(x, 0, r), values(2.0, 0.0, 3.0, 0.0, 5.0), dtypes=RC,
             label=f"zeros, reverse={reverse}"),
        case("cumprod", lambda x, r=reverse: lax.cumprod(x, 1, r), normal(2, 0), label=f"size 0, reverse={reverse}"),
        case("cumprod", lambda x, r=reverse: lax.cumprod(x, 0, r), normal(1), label=f"size 1, reverse={reverse}"),

        case("cumlogsumexp", lambda x, r=reverse: lax.cumlogsumexp(x, 1, r), normal(2, 4), dtypes=ALL, label=f"reverse={reverse}"),
        case("cumlogsumexp", lambda x, r=reverse: lax.cumlogsumexp(x, 0, r), values(0.5, -inf, 1.0, -inf), order=1,
             label=f"minus infinity, reverse={reverse}"),
        case("cumlogsumexp", lambda x, r=reverse: lax.cumlogsumexp(x, 0, r), uniform(-800, 800, 4, 2),
             label=f"wide, reverse={reverse}"),
        case("cumlogsumexp", lambda x, r=reverse: lax.cumlogsumexp(x, 0, r), normal(0, 2), label=f"size 0, reverse={reverse}"),
        case("cumlogsumexp", lambda x, r=reverse: lax.cumlogsumexp(x, 0, r), normal(1), label=f"size 1, reverse={reverse}"),

        *[line for name, run in (("cummax", lax.cummax), ("cummin", lax.cummin)) for line in [
            case(name, lambda x, f=run, r=reverse: f(x, 1, r), distinct(2, 4), dtypes=ALL_FLOATS, label=f"reverse={reverse}"),
            case(name, lambda x, f=run, r=reverse: f(x, 0, r), tied(5, 3),
                 label=f"ties, reverse={reverse}"),
            case(name, lambda x, f=run, r=reverse: f(x, 0, r), fixed(np.ones(5)), label=f"all equal, reverse={reverse}"),
            case(name, lambda x, f=run, r=reverse: f(x, 0, r), normal(0, 2), label=f"size 0, reverse={reverse}"),
            case(name, lambda x, f=run, r=reverse: f(x, 0, r), normal(1), label=f"size 1, reverse={reverse}"),
        ]],
    ]],

    case("sort", lambda x: lax.sort(x, dimension=0), distinct(5, 3), dtypes=ALL_FLOATS),
    case("sort", lambda x: lax.sort(x, dimension=1), tied(2, 6), label="ties"),
    case("sort", lambda x: lax.sort(x, dimension=1), normal(2, 5), dtypes=("complex128",), label="complex"),
    case("sort", lambda x: lax.sort(x, is_stable=False), distinct(4), label="unstable"),
    case("sort", lambda x: lax.sort(x, dimension=1), normal(3, 0), label="size 0"),
    case("sort", lambda x: lax.sort(x), normal(1), label="size 1"),
    case("sort", lambda x: lax.sort(x), values(1.0, np.nan, -inf, -0.0, 0.0), label="special values"),
    case("sort", sort_pairs(1, 1), distinct(2, 4), normal(2, 4), label="key and value"),
    case("sort", sort_pairs(0, 2), tied(6, 2), distinct(6, 2), normal(6, 2), label="two keys"),
    case("sort", sort_pairs(0, 1), ints(0, 3, 6), normal(6), dtypes=(*RC, "float32"), label="integer key"),
    case("sort", sort_pairs(0, 1), normal(6), ints(0, 9, 6), label="integer value"),

    case("approx_top_k", lambda x: lax.approx_max_k(x, 2), distinct(3, 5), dtypes=ALL_FLOATS),
    case("approx_top_k", lambda x: lax.approx_min_k(x, 2, 0), distinct(5, 2), label="smallest, axis 0"),
    case("approx_top_k", lambda x: lax.approx_max_k(x, 2, aggregate_to_topk=False)[0], distinct(6), label="not aggregated"),

    case("top_k", top(2), distinct(3, 5), dtypes=ALL_FLOATS),
    case("top_k", top(3, 0), distinct(5, 2), label="axis 0"),
    case("top_k", top(3), tied(2, 7), label="ties"),
    case("top_k", top(4), distinct(4), label="all"),
    case("top_k", top(0), distinct(4), label="none"),
    case("top_k", top(1), normal(1), label="size 1"),
    case("top_k", lambda x: lax.top_k(x, 2)[0] * jnp.ones(2, x.dtype), distinct(5), label="values only"),
]
