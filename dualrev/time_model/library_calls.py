"""What operations that do not fuse cost besides their launch and their bytes: calls of libraries, sorts, scatters."""

from __future__ import annotations

import math
from collections.abc import Callable

from dualrev.time_model.machine import Constants
from dualrev.time_model.reading import Operation, shape_of, size_of


def dot_flops(op: Operation) -> float:
    (contracted, _), _ = op.eqn.params["dimension_numbers"]
    shape = shape_of(op.eqn.invars[0].aval)
    return 2.0 * op.outs[0].size * math.prod([shape[int(i)] for i in contracted])


def is_matrix_product(op: Operation) -> bool:
    """Whether a library computes it: something is summed, and both operands have an axis of their own, longer than 1."""
    contracted, batch = op.eqn.params["dimension_numbers"]
    if math.prod([shape_of(op.eqn.invars[0].aval)[i] for i in contracted[0]]) == 1:
        return False
    for atom, axes, batch_axes in zip(op.eqn.invars, contracted, batch, strict=True):
        own = [n for i, n in enumerate(shape_of(atom.aval)) if i not in axes and i not in batch_axes]
        if math.prod(own) == 1:
            return False
    return True


def _dot(op: Operation, c: Constants) -> tuple[float, float]:
    flops = dot_flops(op)
    if not is_matrix_product(op):  # a kernel that multiplies and sums
        return flops / 2 * c.reduce_s[op.outs[0].itemsize > 4] / 2, flops
    if is_written_out(op):
        return flops * c.written_dot_s, flops
    times = c.turned_times if is_turned(op) else 1.0
    rate = c.dot_per_s[op.outs[0].itemsize > 4] * max(1.0, min(c.threads, flops // SHARED_FLOPS))
    return c.dot_s + flops / rate * times, flops


#: A product of matrices all of whose axes are shorter than this is written out.
LIBRARY_DOT = 8
#: About how many operations of a product or convolution are worth another thread.
SHARED_FLOPS = 1e6
#: A convolution of or to fewer channels than this is not computed by the library (YNNPACK).
LIBRARY_CHANNELS = 16


def is_written_out(op: Operation) -> bool:
    """Whether a product is a kernel like others."""
    return max([n for atom in op.eqn.invars for n in shape_of(atom.aval)]) < LIBRARY_DOT


def is_turned(op: Operation) -> bool:
    """Whether a factor is read across its rows: the first one not along them, or the second one along them."""
    (first, second), _ = op.eqn.params["dimension_numbers"]
    x, y = [len(shape_of(atom.aval)) for atom in op.eqn.invars]
    return x - 1 not in first or y - 1 in second


def _conv(op: Operation, c: Constants) -> tuple[float, float]:
    kernel = shape_of(op.eqn.invars[1].aval)
    out_features, in_features, *_ = [max(kernel[i], 1) for i in op.eqn.params["dimension_numbers"].rhs_spec]
    flops = 2.0 * op.outs[0].size * math.prod(kernel) / out_features
    times = c.thin_conv_times if min(out_features, in_features) < LIBRARY_CHANNELS else 1.0
    rate = c.conv_per_s[op.outs[0].itemsize > 4] * max(1.0, min(c.threads, flops // SHARED_FLOPS))
    return c.conv_s + flops / rate * times, flops


def _scatter(op: Operation, c: Constants) -> tuple[float, float]:
    updates = size_of(op.eqn.invars[-1].aval)
    return updates * c.scatter_s[op.outs[0].itemsize > 4], float(updates)


def _sort(op: Operation, c: Constants) -> tuple[float, float]:
    dimension = op.eqn.params.get("dimension", -1)
    n = shape_of(op.eqn.invars[0].aval)[dimension]
    rounds = math.log2(max(n, 2))
    return op.outs[0].size * rounds * len(op.outs) * c.sort_s[op.outs[0].itemsize > 4], op.outs[0].size * rounds


def _scan_like(op: Operation, c: Constants) -> tuple[float, float]:
    """Cumulative sums and their like: log2(n) rounds."""
    n = shape_of(op.eqn.invars[0].aval)[op.eqn.params.get("axis", 0)]
    rounds = math.log2(max(n, 2))
    return op.outs[0].size * rounds * c.reduce_s[op.outs[0].itemsize > 4], op.outs[0].size * rounds


def _window(op: Operation, c: Constants) -> tuple[float, float]:
    count = op.outs[0].size * math.prod(op.eqn.params.get("window_dimensions", (1,)))
    return count * c.reduce_s[op.outs[0].itemsize > 4], float(count)


def _random(op: Operation, c: Constants) -> tuple[float, float]:
    count = sum(v.size for v in op.outs)
    return count * c.entry("random", 4), 20.0 * count


def _special(op: Operation, c: Constants) -> tuple[float, float]:
    return op.outs[0].size * c.entry("special", op.outs[0].itemsize), 50.0 * op.outs[0].size


def _factorization(name: str) -> Callable[[Operation, Constants], tuple[float, float]]:
    def priced(op: Operation, c: Constants) -> tuple[float, float]:
        base, each = c.calls.get(name) or c.calls["other"]
        shape = shape_of(op.eqn.invars[0].aval)
        *batch, m, n = shape if len(shape) > 1 else [1, *shape]
        work = float(m) * n * min(m, n)
        if name == "triangular_solve":
            columns = size_of(op.eqn.invars[1].aval) // max(math.prod(batch) * n, 1)
            work = float(n) * n * columns
        if name == "fft":
            work = m * n * math.log2(max(n, 2))
        count = math.prod(batch)
        return base + count * work * each, count * work

    return priced


def _other(op: Operation, c: Constants) -> tuple[float, float]:
    """An operation that is not listed: a function entry by entry if all its arrays are of one size, else a call."""
    if op.outs and {v.size for v in (*op.ins, *op.outs) if v is not None and v.size > 1} == {op.outs[0].size} and len(op.outs) == 1:
        return _special(op, c)
    return c.calls["other"][0], 0.0


_CALLS: dict[str, Callable[[Operation, Constants], tuple[float, float]]] = {
    "dot_general": _dot, "conv_general_dilated": _conv, "sort": _sort, "top_k": _sort,
    **dict.fromkeys(("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter-sub", "addupdate"), _scatter),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _scan_like),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min", "select_and_scatter_add",
                     "select_and_gather_add"), _window),
    **dict.fromkeys(("random_bits", "rng_bit_generator", "threefry2x32"), _random),
    **{name: _factorization(name) for name in ("cholesky", "triangular_solve", "lu", "qr", "eigh", "svd", "eig", "fft")},
    "geqrf": _factorization("qr"), "householder_product": _factorization("qr"), "schur": _factorization("eig"),
    "hessenberg": _factorization("eigh"), "tridiagonal": _factorization("eigh"),
}


def priced_call(op: Operation, c: Constants, is_within: bool) -> tuple[float, float]:
    """The seconds and the operations of a call; ``is_within`` a kernel, where a product of matrices is written out."""
    if is_within and op.name == "dot_general":
        flops = dot_flops(op)
        return flops * c.written_dot_s, flops
    return _CALLS.get(op.name, _other)(op, c)


def flops_of(op: Operation) -> float:
    """The operations of a call of a library."""
    return dot_flops(op) if op.name == "dot_general" else float(sum(v.size for v in op.outs))
