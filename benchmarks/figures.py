"""The figures that the project promises, each a ratio to a peer measured in this process: ``python -m benchmarks.figures``."""

from __future__ import annotations

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import dualrev as dr
from benchmarks import beyond, higher_order
from benchmarks.programs import COMPILED, EAGER, LOOPS, TRACED, WHILE
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.in_jax import chain
from benchmarks.timing import Figure, Run, checked, compare, temporary


def compiled(budget: float) -> list[Figure]:
    figures = []
    for program in COMPILED:
        inputs = program.make_inputs()
        ours, theirs = jax.jit(dr.grad(program.function)), jax.jit(jax.grad(program.function))
        difference = checked(ours(inputs), theirs(inputs))
        figures.append(compare("compiled gradient", program.name, partial(ours, inputs), partial(theirs, inputs), budget, 1.1,
                               difference))
    return figures


def loops(budget: float) -> list[Figure]:
    """Gradients of scans: time, room for temporary values, and time to compile."""
    figures = []
    for program in LOOPS:
        inputs = program.make_inputs()
        built, seconds = {}, {}
        for name, grad in (("ours", dr.grad), ("theirs", jax.grad)):
            lowered = jax.jit(grad(program.function)).lower(inputs)
            start = time.perf_counter()
            built[name] = lowered.compile()
            seconds[name] = time.perf_counter() - start
        room = temporary(built["ours"]) / temporary(built["theirs"])
        label = f"{program.name} (room {room:.2f}, compiling {seconds['ours'] / seconds['theirs']:.2f})"
        difference = checked(built["ours"](inputs), built["theirs"](inputs))
        figures.append(compare("scan", label, partial(built["ours"], inputs), partial(built["theirs"], inputs), budget, 0.9,
                               difference))
    return figures


def unbounded(budget: float) -> list[Figure]:
    """Gradients of while loops, against those of a scan with as many steps by jax."""
    figures = []
    for program in WHILE:
        inputs = program.make_inputs()
        theirs = jax.jit(jax.grad(program.function_in_jax))
        for kept in (16, 64, None):
            ours = jax.jit(dr.grad(program.function, loop_checkpoints=kept))
            room = [temporary(run.lower(inputs).compile()) // inputs[1].nbytes for run in (ours, theirs)]
            difference = checked(ours(inputs), theirs(inputs), 1e-3)
            label = f"{program.name}, {kept or 'default'} states (room for {room[0]:,}; scan {room[1]:,})"
            figures.append(compare("while over scan", label, partial(ours, inputs), partial(theirs, inputs), budget, 1.5, difference))
    return figures


def traced(budget: float) -> list[Figure]:
    figures = []
    for program in TRACED:
        inputs = program.make_inputs()
        difference = checked(jax.jit(dr.grad(program.function))(inputs), jax.jit(jax.grad(program.function))(inputs), 1e-3)

        def trace(grad: Any, function: Any = program.function, inputs: Any = inputs) -> Run:
            # A new function each time: neither library may find the whole trace in a cache.
            def run() -> None:
                jax.jit(grad(lambda x: function(x))).trace(inputs)
            return run

        figures.append(compare("tracing jit(grad)", program.name, trace(dr.grad), trace(jax.grad), budget, 0.5, difference))
    return figures


def gradient(grad: Any, function: Callable[[Any], Any], inputs: Any) -> Any:
    """The gradient asked for anew, as in a user's un-jitted step."""
    return grad(function)(inputs)


def pulled(vjp: Any, function: Callable[[Any], Any], inputs: Any) -> Any:
    """The value and one pull."""
    out, pull = vjp(function, inputs)
    return out, pull(jnp.ones_like(out))


def eager(budget: float) -> list[Figure]:
    figures = []
    for program in EAGER:
        inputs = program.make_inputs()
        function = program.function
        tangents = jax.tree.map(jnp.ones_like, inputs)
        pairs: list[tuple[str, Run, Run, float]] = [
            ("un-jitted gradient", partial(gradient, dr.grad, function, inputs), partial(gradient, jax.grad, function, inputs),
             0.25),
            ("un-jitted jvp", partial(dr.jvp, function, (inputs,), (tangents,)),
             partial(jax.jvp, function, (inputs,), (tangents,)), 0.8),
            ("un-jitted vjp", partial(pulled, dr.vjp, function, inputs), partial(pulled, jax.vjp, function, inputs), 0.22),
        ]
        for group, ours, theirs, goal in pairs:
            figures.append(compare(group, program.name, ours, theirs, budget, goal, checked(ours(), theirs())))
    return figures


def loops_eager(budget: float) -> list[Figure]:
    """Transforms that are asked for anew, of functions with a loop: whatever is compiled again takes most of the time."""
    figures = []
    for name in ("Van der Pol, midpoint, size 1", "chemostat, fori_loop, size 1"):
        program = SCENARIOS[name]
        inputs = program.make_inputs()
        pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
            "pushes of a basis": (partial(_at, dr.jacfwd, inputs), partial(_at, jax.jacfwd, inputs)),
            "hessian": (partial(_at, dr.hessian, inputs), partial(_at, jax.hessian, inputs)),
            "gradient of a batch": (partial(_of_batch, dr.grad, inputs), partial(_of_batch, jax.grad, inputs)),
        }
        for label, (ours, theirs) in pairs.items():
            runs = partial(ours, program.function), partial(theirs, program.function)
            figures.append(compare(f"un-jitted {label}", name, *runs, budget, 0.2, checked(runs[0](), runs[1](), 2e-3)))
    return figures


def _at(transform: Any, x: Any, function: Callable[[Any], Any]) -> Any:
    return transform(function)(x)


def _of_batch(transform: Any, x: Any, function: Callable[[Any], Any]) -> Any:
    return jax.vmap(transform(function))(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), x))


@dataclass(frozen=True)
class Memory:
    """What a derivative held at most while it ran, beyond what was there before."""

    call: str
    length: int
    python_bytes: int
    array_bytes: int


def memory(call: str, length: int, size: int = 1000) -> Memory:
    """Peak Python memory, and array bytes alive at a tenth of the way and onwards, of one un-jitted run."""
    x = jnp.linspace(0.0, 1.0, size)
    alive = [0]
    program = chain(max(length // 10, 1))

    def function(x: jax.Array) -> jax.Array:
        for _ in range(10):
            x = program(x)
            alive.append(sum(a.nbytes for a in jax.live_arrays()))
        return x

    def run() -> None:
        if call == "jvp":
            jax.block_until_ready(dr.jvp(function, (x,), (x,)))
        else:
            jax.block_until_ready(dr.vjp(function, x)[0])

    run()
    gc.collect()
    before = sum(a.nbytes for a in jax.live_arrays())
    alive[:] = [before]
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Memory(call, length, peak, max(alive) - before)


def ratios(figures: list[Figure]) -> Table:
    table = Table(title=f"dualrev against its peers, jax {jax.__version__}, {jax.devices()[0].platform}, float32: ratios of time")
    table.add_column("what")
    table.add_column("program")
    for heading in ("dualrev, µs", "peer, µs", *Figure.HEADINGS, "difference"):
        table.add_column(heading, justify="right")
    for f in figures:
        table.add_row(f.group, f.name, *f.cells(), f"{f.difference:.0e}")
    return table


def held() -> list[Memory]:
    return [memory("jvp", 1_000), memory("jvp", 100_000), memory("vjp", 1_000)]


def held_table(memories: list[Memory]) -> Table:
    table = Table(title="held at most during one un-jitted run over a chain of operations on 4 kB arrays")
    for heading in ("call", "operations", "Python, kB", "arrays, kB"):
        table.add_column(heading, justify="right")
    for m in memories:
        table.add_row(m.call, f"{m.length:,}", f"{m.python_bytes / 1e3:,.0f}", f"{m.array_bytes / 1e3:,.0f}")
    return table


GROUPS: dict[str, Callable[[float], list[Figure]]] = {
    "compiled": compiled, "traced": traced, "eager": eager, "eager loops": loops_eager, "loops": loops, "while": unbounded,
    "hand": beyond.by_hand, "equinox": beyond.equinox, "hvp": beyond.hvp,
    "laplacian": higher_order.laplacian, "jet": higher_order.jet}
#: Groups of other numbers: how they are measured, and how they are shown.
OTHERS: dict[str, tuple[Callable[[], list[Any]], Callable[[list[Any]], Table]]] = {
    "memory": (held, held_table), "residuals": (beyond.residuals, beyond.residuals_table)}


def main() -> None:
    groups = [*GROUPS, *OTHERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=f"which of {', '.join(groups)} (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="time given to each ratio")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(groups):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    wanted = options.groups or groups
    console = Console(width=None)
    figures = [figure for name, measure in GROUPS.items() if name in wanted for figure in measure(options.seconds)]
    others = {name: measure() for name, (measure, _) in OTHERS.items() if name in wanted}
    if options.json:
        console.print_json(data={"figures": [asdict(f) for f in figures],
                                 **{name: [asdict(x) for x in found] for name, found in others.items()}})
        return
    if figures:
        console.print(ratios(figures))
    for name, found in others.items():
        console.print(OTHERS[name][1](found))


if __name__ == "__main__":
    main()
