"""What a program costs: the formula of the time model, applied to its kernels, calls and loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn
from dualrev.time_model.fusion import program
from dualrev.time_model.kernels import Kernel, Program
from dualrev.time_model.library_calls import dot_flops, flops_of, is_matrix_product, priced_call
from dualrev.time_model.machine import Constants
from dualrev.time_model.operations import MOVES_WITHIN, QUICK, SIMPLE, VECTORISED
from dualrev.time_model.reading import Operation, Value, is_one_window, shape_of, size_of


@dataclass
class Cost:
    """Seconds and what they consist of; ``by_equation`` are the seconds and the bytes of each equation, those in loops' bodies as often
    as they run."""

    seconds: float = 0.0
    kernels: float = 0.0
    nbytes: float = 0.0
    flops: float = 0.0
    #: Entries of elementwise functions such as exp.
    transcendentals: float = 0.0
    #: Calls of libraries.
    calls: float = 0.0
    by_equation: dict[int, tuple[JaxprEqn, float, float]] = field(default_factory=dict)

    def add(self, other: Cost, times: float = 1.0) -> None:
        for name in ("seconds", "kernels", "nbytes", "flops", "transcendentals", "calls"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for eqn, seconds, nbytes in other.by_equation.values():
            self.charge(eqn, times * seconds, times * nbytes)

    def charge(self, eqn: JaxprEqn, seconds: float, nbytes: float = 0.0) -> None:
        _, before, bytes_before = self.by_equation.get(id(eqn), (eqn, 0.0, 0.0))
        self.by_equation[id(eqn)] = (eqn, before + seconds, bytes_before + nbytes)


@dataclass(frozen=True)
class Place:
    """Where kernels run: what launching one costs, how many bytes they all work on, and by how many threads a large one is shared."""

    kernel_s: float
    nbytes: float
    threads: float = 1.0
    argument_s: float = 0.0
    #: Whether it is a kernel itself, of a loop.
    is_kernel: bool = False

    def seconds(self, nbytes: float, c: Constants) -> float:
        """Seconds to read and write so many bytes: what a kernel reads was written not long before, so that the level of memory is
        that of its own arrays, twice, or of all."""
        return nbytes / c.rate(min(self.nbytes, 2.0 * nbytes))


def entry_seconds(op: Operation, c: Constants) -> float:
    """Seconds for each entry that an operation which fuses computes."""
    out = op.outs[0]
    if op.kind == "reduce":
        return (c.reduce_s if is_along_last(op) else c.reduce_rows_s)[out.itemsize > 4]
    if op.name == "gather" and not is_one_window(op.eqn):
        return c.gather_s[out.itemsize > 4]
    if op.kind == "join":
        return c.pad_s if op.name == "pad" else c.join_s
    if op.kind == "update":
        return c.entry("simple", out.itemsize)
    if op.kind in ("slice", "spread") or op.name == "iota":
        return 0.0
    if op.name in MOVES_WITHIN:
        return c.join_s
    if op.name == "integer_pow":
        y = abs(op.eqn.params["y"])
        inverse = c.entry("div", out.itemsize) if op.eqn.params["y"] < 0 else 0.0
        return inverse + (max(y.bit_length() - 1, 0) + bin(y).count("1") - 1 if y else 0) * c.entry("simple", out.itemsize)
    return c.entry("simple" if op.name in SIMPLE else op.name, out.itemsize)


def is_along_last(op: Operation) -> bool:
    """Whether a reduction sums neighbours in memory, one after the other; other reductions sum several columns at once."""
    shape = shape_of(op.eqn.invars[0].aval)
    axes = op.eqn.params.get("axes", (len(shape) - 1,))
    return max([i for i, n in enumerate(shape) if n > 1], default=0) in axes


#: A kernel works on several entries at once if the last axis has at least so many; and as part of a loop that is one kernel.
ROW = 4
ROW_WITHIN = 64
#: Reading across rows moves so many bytes for each entry; of larger arrays, the lines are still near when the next entry is read.
LINE = 64.0
LINES_KEPT = 2.0**24


def kernel_cost_of(kernel: Kernel, c: Constants, place: Place) -> Cost:
    """``launch + (Σ (first + entries · seconds) + bytes / rate) / threads``."""
    cost = Cost(kernels=1.0, nbytes=kernel.nbytes)
    scalar = kernel.is_scalar(ROW_WITHIN if place.is_kernel else ROW)
    work = place.seconds(kernel.nbytes, c)
    work += sum([count * LINE / c.rate(min(v.nbytes, LINES_KEPT)) for v, count in kernel.across.items()])
    priced: list[tuple[Operation, float]] = []
    for op, count in kernel.work:
        is_simple = op.kind != "entry" or op.name in SIMPLE or op.name in MOVES_WITHIN
        seconds = entry_seconds(op, c)
        if kernel.is_library and op.kind != "spread":
            seconds = (c.library_sum_s if op.kind == "reduce" else c.library_entry_s)[op.outs[0].itemsize > 4]
        if op.kind == "entry" and scalar:
            if is_simple:
                seconds = max(seconds, c.scalar_s)
            elif op.name in VECTORISED:
                seconds *= c.scalar_times
        seconds = count * seconds + c.first_s[0 if is_simple else 1 if op.name in QUICK else 2]
        priced.append((op, seconds))
        work += seconds
        if op.kind in ("entry", "reduce"):
            cost.flops += count
            if not is_simple:
                cost.transcendentals += count
    share = 1.0 / shared_by(cost, place)
    for op, seconds in priced:
        cost.charge(op.eqn, seconds * share)
    cost.seconds = place.kernel_s + work * share + (c.library_s if kernel.is_library else 0.0)
    cost.seconds += (1 + len(kernel.read)) * place.argument_s
    if kernel.root.maker is not None:
        cost.charge(kernel.root.maker.eqn, cost.seconds - sum([seconds * share for _, seconds in priced]), kernel.nbytes)
    return cost


def shared_by(cost: Cost, place: Place) -> float:
    """By how many threads a kernel is computed: XLA:CPU's ``parallel_task_assignment.cc``."""
    if place.threads == 1.0:
        return 1.0
    if cost.flops <= cost.nbytes:
        tasks = cost.nbytes / 2**18
    else:
        tasks = (cost.flops + 2 * cost.transcendentals + 10 * cost.nbytes) / 1e5
    return max(1.0, min(place.threads, tasks // 1))


#: A graph of which more than so many parts can start at once is split among threads, which delays no more than so many of them.
SPLIT_WIDTH = 11
SPLIT_PARTS = 32


def parts_of(found: Program) -> int:
    """What a compiled program launches: its kernels and calls, and what each loop fills and copies."""
    return len(found.kernels) + sum([1 + len(op.outs) if op.kind == "loop" else 1 for op in found.calls])


def is_graph(found: Program, counters: int = 1, stacks: Sequence[Value | None] = ()) -> bool:
    """Whether a program is run as a graph: one of more than eight parts, on arrays that are not tiny.

    Source: XLA:CPU's ``thunk_executor.cc``.
    """
    return parts_of(found) + counters > 8 and any(v.nbytes > 512 for v in (*found.inputs, *found.stored, *stacks) if v is not None)


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
        return cost_of_loop(op, c, place)
    nbytes = bytes_of_call(op)
    if op.kind == "branch":
        costs = [cost_of_program(held, c, place) for held in op.held]
        cost = Cost(place.kernel_s)
        cost.add(max(costs, key=lambda x: x.seconds, default=Cost()))
        return cost
    if op.kind == "whole":
        return cost_of_whole(op, c, place)
    seconds, flops = priced_call(op, c, place.is_kernel)
    cost = Cost(place.kernel_s + seconds + place.seconds(nbytes, c), 1.0, nbytes, flops, 0.0, 1.0)
    cost.charge(op.eqn, cost.seconds, nbytes)
    return cost


def bytes_of_call(op: Operation) -> float:
    """The bytes that a call reads and writes: of a scatter, which is in place, the entries that are written, not all."""
    if op.name.startswith("scatter"):
        updates = float(size_of(op.eqn.invars[2].aval) * op.outs[0].itemsize)
        return 2 * updates + sum([v.nbytes for v in op.ins[1:] if v is not None])
    return float(sum([v.nbytes for v in (*op.ins, *op.outs) if v is not None]))


def cost_of_whole(op: Operation, c: Constants, place: Place) -> Cost:
    """A program that is one kernel: its parts are not launched."""
    (held,) = op.held
    if c.backend != "cpu" or place.is_kernel:
        return cost_of_program(held, c, place)
    cost = Cost(place.kernel_s, 1.0)
    cost.add(cost_of_program(held, c, Place(c.within_s, working_set(held), is_kernel=True)))
    return cost


def cost_of_loop(op: Operation, c: Constants, place: Place) -> Cost:
    """``steps · (step + body)``; stacked results are filled before; a small body is compiled to one kernel."""
    body = op.held[0]
    cost = Cost()
    nbytes = working_set(body)
    if place.is_kernel or is_one_kernel(op, c):
        within = Place(c.within_s, nbytes, is_kernel=True)
        cost.seconds = op.steps * c.one_kernel_step_s
    else:
        within = Place(c.graph_kernel_s if is_graph(body, 2, (*op.ins, *op.outs)) else c.loop_kernel_s, nbytes, c.threads, c.argument_s)
        cost.seconds = op.steps * c.step_s
    cost.charge(op.eqn, cost.seconds)
    for held in op.held:
        cost.add(cost_of_program(held, c, within), op.steps)
    stacks = len(op.outs) - op.carries
    written = float(sum([v.nbytes for v in op.outs[op.carries:]]))
    read = float(sum([v.nbytes for v in op.ins[op.stacks:] if v is not None])) if op.stacks else 0.0
    # What is written was filled before, and filling is a fill of one and a copy of it to the others.
    first = op.carries + stacks
    cost.add(Cost((2.0 * written + read) / c.rate(written + read) + place.kernel_s * first, first, written))
    cost.charge(op.eqn, cost.seconds - sum([seconds for _, seconds, _ in cost.by_equation.values()]), written)
    return cost


#: Operations that keep a loop from being one kernel.
APART = frozenset(("sort", "fft", "scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max", "cholesky", "triangular_solve",
                   "lu", "qr", "geqrf", "householder_product", "eigh", "eig", "svd", "schur", "hessenberg", "tridiagonal",
                   "tridiagonal_solve", "custom_call", "ffi_call", "pure_callback", "io_callback", "debug_callback", "psum",
                   "all_gather", "ppermute", "all_to_all", "conv_general_dilated"))


def is_one_kernel(op: Operation, c: Constants) -> bool:
    """Whether XLA:CPU compiles the whole loop to one kernel."""
    return c.one_kernel_bytes > 0 and all(_may_be_within(held, c) for held in op.held) and (
        sum(held.nbytes_touched for held in op.held) + op.nbytes_stacked + 48 <= c.one_kernel_bytes)


def is_one_kernel_step(jaxpr: ClosedJaxpr, c: Constants) -> bool:
    """As :func:`is_one_kernel`, of a loop with this program as its step."""
    found = program(jaxpr)
    return c.one_kernel_bytes > 0 and _may_be_within(found, c) and found.nbytes_touched + 48 <= c.one_kernel_bytes


def _may_be_within(found: Program, c: Constants) -> bool:
    for kernel in found.kernels:
        if any(op.kind == "reduce" and count >= c.library_sum for op, count in kernel.work):
            return False
    for op in found.calls:
        if op.name in APART or (op.name == "dot_general" and is_matrix_product(op) and dot_flops(op) / 2 >= c.library_dot):
            return False
        if not all(_may_be_within(held, c) for held in op.held):
            return False
    return True


def working_set(found: Program) -> float:
    """The bytes that a program works on: each of its arrays once."""
    own: dict[int, Value] = {id(v): v for v in (*found.inputs, *found.stored)}
    return float(sum(v.nbytes for v in own.values()))


# ------------------------------------------------------------------------------------------------------------- whole programs


def cost_of_jaxpr(jaxpr: ClosedJaxpr, c: Constants) -> Cost:
    """The cost of a program that is compiled alone and called once."""
    return cost_of_call_of(program(jaxpr), c)


def cost_of_call_of(found: Program, c: Constants) -> Cost:
    """The cost of one call of a compiled program."""
    total = working_set(found)
    as_graph = is_graph(found)
    cost = cost_of_program(found, c, Place(c.graph_s if as_graph else c.kernel_s, total, c.threads))
    fresh = float(sum(v.nbytes for v in found.stored))
    cost.seconds += c.call_s + c.leaf_s * len(found.inputs) + c.result_s * len(found.outputs)
    if fresh > c.fresh_from:
        cost.seconds += fresh * c.fresh_s
    if as_graph and found.width > SPLIT_WIDTH:
        cost.seconds += c.split_s * min(parts_of(found), SPLIT_PARTS)
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
