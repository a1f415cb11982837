"""What a program costs: the formula of the time model, applied to its kernels, calls and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn
from dualrev.time_model.fusion import Kernel, Operation, Program, Value, program, shape_of, size_of
from dualrev.time_model.machine import Constants
from dualrev.time_model.operations import MOVES_WITHIN, SIMPLE


@dataclass
class Cost:
    """Seconds and what they consist of; ``by_equation`` are the seconds of each equation, loops' bodies within them."""

    seconds: float = 0.0
    kernels: float = 0.0
    nbytes: float = 0.0
    flops: float = 0.0
    #: Entries of elementwise functions such as exp.
    transcendentals: float = 0.0
    #: Calls of libraries.
    calls: float = 0.0
    by_equation: dict[int, tuple[JaxprEqn, float]] = field(default_factory=dict)

    def add(self, other: Cost, times: float = 1.0) -> None:
        for name in ("seconds", "kernels", "nbytes", "flops", "transcendentals", "calls"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for eqn, seconds in other.by_equation.values():
            self.charge(eqn, times * seconds)

    def charge(self, eqn: JaxprEqn, seconds: float) -> None:
        self.by_equation[id(eqn)] = (eqn, self.by_equation.get(id(eqn), (eqn, 0.0))[1] + seconds)


@dataclass(frozen=True)
class Place:
    """Where kernels run: what launching one costs, and how fast memory is."""

    kernel_s: float
    rate: float


def entry_seconds(op: Operation, c: Constants) -> float:
    """Seconds for each entry that an operation which fuses computes."""
    out = op.outs[0]
    if op.kind in ("reduce",):
        return c.reduce_s[out.itemsize > 4]
    if op.name == "gather":
        return c.gather_s[out.itemsize > 4]
    if op.kind == "join":
        return c.join_s
    if op.kind in ("slice", "spread") or op.name == "iota":
        return 0.0
    if op.name in MOVES_WITHIN:
        return c.join_s
    if op.name == "integer_pow":
        y = abs(op.eqn.params["y"])
        inverse = c.entry("div", out.itemsize) if op.eqn.params["y"] < 0 else 0.0
        return inverse + (max(y.bit_length() - 1, 0) + bin(y).count("1") - 1 if y else 0) * c.entry("simple", out.itemsize)
    return c.entry("simple" if op.name in SIMPLE else op.name, out.itemsize)


def kernel_cost_of(kernel: Kernel, c: Constants, place: Place) -> Cost:
    """``launch + Σ (first + entries · seconds) + bytes / rate``."""
    cost = Cost(kernels=1.0, nbytes=kernel.nbytes)
    for op, count in kernel.work:
        seconds = count * entry_seconds(op, c) + c.first_s[op.kind == "entry" and op.name not in SIMPLE]
        cost.seconds += seconds
        cost.charge(op.eqn, seconds)
        if op.kind in ("entry", "reduce"):
            cost.flops += count
            if op.name not in SIMPLE and op.kind == "entry":
                cost.transcendentals += count
    rest = place.kernel_s + kernel.nbytes / place.rate
    cost.seconds += rest
    if kernel.root.maker is not None:
        cost.charge(kernel.root.maker.eqn, rest)
    return cost


def cost_of_program(found: Program, c: Constants, place: Place) -> Cost:
    cost = Cost()
    for kernel in found.kernels:
        cost.add(kernel_cost_of(kernel, c, place))
    for op in found.calls:
        cost.add(cost_of_call(op, c, place))
    return cost


def cost_of_call(op: Operation, c: Constants, place: Place) -> Cost:
    """An operation that does not fuse: a loop, a branch, or a call of a library."""
    if op.kind == "loop":
        return cost_of_loop(op, c)
    nbytes = float(sum(v.nbytes for v in (*op.ins, *op.outs) if v is not None))
    if op.kind == "branch":
        costs = [cost_of_program(held, c, place) for held in op.held]
        cost = Cost(place.kernel_s)
        cost.add(max(costs, key=lambda x: x.seconds, default=Cost()))
        return cost
    seconds, flops = _CALLS.get(op.name, _other)(op, c)
    cost = Cost(place.kernel_s + seconds + nbytes / place.rate, 1.0, nbytes, flops, 0.0, 1.0)
    cost.charge(op.eqn, cost.seconds)
    return cost


def cost_of_loop(op: Operation, c: Constants) -> Cost:
    """``steps · (step + body)``; stacked results are filled before; a small body is compiled to one kernel."""
    body = op.held[0]
    place = Place(0.0 if is_one_kernel(op, c) else c.loop_kernel_s, c.rate(working_set(body)))
    cost = Cost()
    cost.seconds = op.steps * (c.one_kernel_step_s if is_one_kernel(op, c) else c.step_s)
    cost.charge(op.eqn, cost.seconds)
    for held in op.held:
        cost.add(cost_of_program(held, c, place), op.steps)
    cost.charge(op.eqn, cost.seconds - sum(seconds for _, seconds in cost.by_equation.values()))  # copies of carries
    written = float(sum(v.nbytes for v in op.outs[op.carries:]))
    read = float(sum(v.nbytes for v in op.ins[op.stacks:] if v is not None)) if op.stacks else 0.0
    if written or read:
        seconds = (2.0 * written + read) / c.rate(written + read) + c.kernel_s  # what is written was filled before
        cost.add(Cost(seconds, 1.0, written))
        cost.charge(op.eqn, seconds)
    return cost


#: Operations that keep a loop from being one kernel.
APART = frozenset(("sort", "fft", "scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max", "cholesky", "triangular_solve",
                   "lu", "qr", "geqrf", "householder_product", "eigh", "eig", "svd", "schur", "hessenberg", "tridiagonal",
                   "tridiagonal_solve", "custom_call", "ffi_call", "pure_callback", "io_callback", "debug_callback", "psum",
                   "all_gather", "ppermute", "all_to_all", "conv_general_dilated"))


def is_one_kernel(op: Operation, c: Constants) -> bool:
    """Whether XLA:CPU compiles the whole loop to one kernel."""
    return c.one_kernel_bytes > 0 and all(_may_be_within(held, c) for held in op.held) and (
        sum(held.nbytes_touched for held in op.held) + op.nbytes_stacked + 48 < c.one_kernel_bytes)


def is_one_kernel_step(jaxpr: ClosedJaxpr, c: Constants) -> bool:
    """As :func:`is_one_kernel`, of a loop with this program as its step."""
    found = program(jaxpr)
    return c.one_kernel_bytes > 0 and _may_be_within(found, c) and found.nbytes_touched + 48 < c.one_kernel_bytes


def _may_be_within(found: Program, c: Constants) -> bool:
    for kernel in found.kernels:
        if any(op.kind == "reduce" and count >= c.library_sum for op, count in kernel.work):
            return False
    for op in found.calls:
        if op.name in APART or (op.name == "dot_general" and is_matrix_product(op) and _dot_flops(op) / 2 >= c.library_dot):
            return False
        if not all(_may_be_within(held, c) for held in op.held):
            return False
    return True


def working_set(found: Program) -> float:
    """The bytes that a program works on: each of its arrays once."""
    own: dict[int, Value] = {id(v): v for v in (*found.inputs, *found.stored)}
    return float(sum(v.nbytes for v in own.values()))


# ---------------------------------------------------------------------------------------------------------- calls of libraries


def _dot_flops(op: Operation) -> float:
    (contracted, _), _ = op.eqn.params["dimension_numbers"]
    shape = shape_of(op.eqn.invars[0].aval)
    return 2.0 * op.outs[0].size * math.prod([shape[int(i)] for i in contracted])


def is_matrix_product(op: Operation) -> bool:
    """Whether a library computes it: both operands have an axis of their own, longer than 1."""
    contracted, batch = op.eqn.params["dimension_numbers"]
    for atom, axes, batch_axes in zip(op.eqn.invars, contracted, batch, strict=True):
        own = [n for i, n in enumerate(shape_of(atom.aval)) if i not in axes and i not in batch_axes]
        if math.prod(own) == 1:
            return False
    return True


def _dot(op: Operation, c: Constants) -> tuple[float, float]:
    flops = _dot_flops(op)
    if not is_matrix_product(op):  # a kernel that multiplies and sums
        return flops / 2 * c.reduce_s[op.outs[0].itemsize > 4] / 2, flops
    return c.dot_s + flops / c.dot_per_s[op.outs[0].itemsize > 4], flops


def _conv(op: Operation, c: Constants) -> tuple[float, float]:
    kernel = shape_of(op.eqn.invars[1].aval)
    out_features = max(kernel[op.eqn.params["dimension_numbers"].rhs_spec[0]], 1)
    flops = 2.0 * op.outs[0].size * math.prod(kernel) / out_features
    return c.dot_s + flops / c.dot_per_s[op.outs[0].itemsize > 4], flops


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


def flops_of(op: Operation) -> float:
    """The operations of a call of a library."""
    return _dot_flops(op) if op.name == "dot_general" else float(sum(v.size for v in op.outs))


# ------------------------------------------------------------------------------------------------------------- whole programs


def cost_of_jaxpr(jaxpr: ClosedJaxpr, c: Constants) -> Cost:
    """The cost of a program that is compiled alone and called once."""
    found = program(jaxpr)
    total = working_set(found)
    cost = cost_of_program(found, c, Place(c.kernel_s, c.rate(total)))
    fresh = float(sum(v.nbytes for v in found.stored))
    cost.seconds += c.call_s + c.leaf_s * (len(found.inputs) + len(found.outputs))
    if fresh > c.fresh_from:
        cost.seconds += fresh * c.fresh_s
    if once_through(found) >= c.handed_flops:
        cost.seconds += c.hand_s
    return cost


def once_through(found: Program) -> float:
    """The operations of a program when each loop makes one step, as XLA's cost analysis counts them."""
    total = sum(count for kernel in found.kernels for op, count in kernel.work if op.kind in ("entry", "reduce"))
    for op in found.calls:
        total += sum(map(once_through, op.held)) if op.held else flops_of(op)
    return total


def time_of(jaxpr: ClosedJaxpr, constants: Constants) -> float:
    """Seconds that one call of a compiled program takes."""
    return cost_of_jaxpr(jaxpr, constants).seconds
