"""The look at results in a compiled program: one flag, and where it is False, a callback that keeps the operands."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.avals import is_extended, typeof
from dualrev._jax.batches import recording_batches
from dualrev._jax.custom_rules import bind_custom_jvp
from dualrev._jax.execution import waiting
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun, stage
from dualrev._jax.sharding import vary_over
from dualrev.inspection.finiteness.entries import are_good, holds_floats
from dualrev.inspection.finiteness.report import NanReport
from dualrev.inspection.finiteness.shards import stacked_program
from dualrev.inspection.finiteness.where_nan import locate


class Keeper(Protocol):
    """Who keeps what compiled programs tell."""

    infinities: bool
    lock: threading.Lock
    failed: list[Callable[[], NanReport]]
    is_silent: bool
    has_effects: bool


class Failure:
    """What has to be known of a derivative in a compiled program to tell what made a bad result: its program, and its operands."""

    def __init__(self, watch: Keeper, program: ClosedJaxpr, name: str, results: Sequence[str], arguments: Sequence[str]):
        self.watch = watch
        self.program = program
        self.name, self.results, self.arguments = name, results, arguments

    def look(self, results: Sequence[jax.Array], operands: Sequence[jax.Array], is_silent: bool | None = None) -> list[jax.Array]:
        """The results, with a look at them in the program that is being traced: where one is bad, the operands are kept.

        ``is_silent``: without an effect, so that results which nothing uses are not looked at.
        """
        silent = _is_alone() if is_silent is None else is_silent
        if not any(holds_floats(x) and x.size for x in results):
            return list(results)

        n, m = len(results), len(operands)

        def looked(*given: jax.Array) -> list[jax.Array]:
            found: list[jax.Array] = look(list(given[:n]), list(given[n:]))
            return found

        def jvp(*given: Any) -> list[Any]:
            # Within a derivative of jax's, the results may be used by nothing, and matter all the same.
            return [*self.look(given[:n], given[n: n + m], is_silent=False), *given[n + m: n + m + n]]

        @jax.custom_batching.custom_vmap
        def look(results: list[jax.Array], operands: list[jax.Array]) -> list[jax.Array]:
            return self._looked(results, operands, silent)

        @look.def_vmap
        def look_at_all(size: int, is_batched: Any, results: list[jax.Array], operands: list[jax.Array]) -> Any:
            axes = [0 if batched else None for batched in is_batched[1]]
            with recording_batches():
                whole = stage(jax.vmap(jaxpr_as_fun(self.program), in_axes=axes, axis_size=size), [typeof(x) for x in operands])
            failure = Failure(self.watch, whole, self.name, self.results, self.arguments)
            return failure.look(results, operands, silent), is_batched[0]

        return bind_custom_jvp(looked, jvp, [*results, *operands])

    def _looked(self, results: list[jax.Array], operands: list[jax.Array], is_silent: bool) -> list[jax.Array]:
        # Without the barrier, the compiler computes the results once to be looked at, and once to be returned.
        results = list(lax.optimization_barrier(results))
        good = are_good(results, self.watch.infinities)
        if not is_silent:
            self.watch.has_effects = True
            mesh = jax.sharding.get_abstract_mesh()
            axes = tuple(name for name in mesh.axis_names if name in mesh.manual_axes)
            if axes:  # in shard_map: where one shard has a bad result, all keep the operands of all
                bad = vary_over(jnp.where(good, jnp.int32(0), jnp.int32(1)), frozenset(axes))
                good = lax.psum(bad, axes) == 0
                lax.cond(good, lambda *_: None, lambda *xs: jax.debug.callback(
                    functools.partial(self.keep, mesh), *[lax.all_gather(vary_over(x, frozenset(axes)), axes) for x in xs]), *operands)
                return results
            lax.cond(good, lambda *_: None, lambda *xs: jax.debug.callback(functools.partial(self.keep, None), *xs), *operands)
            return results
        # A program with effects is called by Python; one in which a result passes through a function of the host is not.
        self.watch.is_silent = True
        least = min((i for i, x in enumerate(results) if holds_floats(x) and x.size), key=lambda i: results[i].size)
        x = results[least]

        def told(x: jax.Array, *operands: jax.Array) -> jax.Array:
            found: jax.Array = jax.pure_callback(self.keep_and_return, jax.ShapeDtypeStruct(x.shape, x.dtype), x, *operands)
            return found

        results[least] = lax.cond(good, lambda x, *_: x, told, x, *operands)
        return results

    def keep(self, mesh: jax.sharding.AbstractMesh | None, *operands: jax.Array) -> None:
        """Called by the compiled program, in any thread: nothing may be computed here."""
        with self.watch.lock:
            self.watch.failed.append(lambda: self.report(mesh, operands))

    def keep_and_return(self, x: jax.Array, *operands: jax.Array) -> np.ndarray:
        """The same, and ``x``."""
        self.keep(None, *[np.array(operand) for operand in operands])  # type: ignore[arg-type]  # its memory may be used again
        return np.asarray(x)

    def report(self, mesh: jax.sharding.AbstractMesh | None, operands: Sequence[jax.Array]) -> NanReport:
        # Those that come from a callback are bound to its device.
        args = [jnp.asarray(x if is_extended(x.dtype) else np.asarray(x)) for x in operands]
        program = self.program if mesh is None else stacked_program(self.program, mesh, args)
        results = jax.jit(jaxpr_as_fun(program))(*args)
        report = locate(program, args, results, self.results, self.arguments, self.name, self.watch.infinities)
        if not report.found:
            return NanReport(self.name, "nan", "a result")
        return report if mesh is None else dataclasses.replace(report, index=report.index[1:])  # without the number of the shard


def _is_alone() -> bool:
    """Whether one device runs all programs, so that it runs them in the order in which a thread calls them."""
    return jax.device_count() == 1 and jax.sharding.get_abstract_mesh().empty


def wait_for(watch: Keeper) -> None:
    """Wait for the programs that tell a watch of failures and that this thread has called."""
    if watch.has_effects:
        jax.effects_barrier()
    if watch.is_silent:  # on a single device
        waiting()()
