"""``finite``: a block in which results of derivatives that are not finite raise an error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev._jax.jaxprs import hoisted, jaxpr_as_fun, stage
from dualrev._jax.traces import Tracer, in_eager_context
from dualrev.functional.watching import watched_by
from dualrev.inspection.anew import anew
from dualrev.inspection.finiteness.calls import Call, flat, result_names
from dualrev.inspection.finiteness.entries import all_good, holds_floats
from dualrev.inspection.finiteness.looking import Failure, wait_for
from dualrev.inspection.finiteness.report import NanReport
from dualrev.inspection.finiteness.where_nan import where_nan


class Watch:
    """Looks at the results of the derivatives that one thread asks for, and keeps what compiled programs tell.

    There is one for each thread, and for each ``infinities``: programs that a block compiled serve the next block too.
    """

    def __init__(self, infinities: bool):
        self.infinities = infinities
        self.lock = threading.Lock()
        #: Reports of compiled programs that were not raised yet: functions that make them.
        self.failed: list[Callable[[], NanReport]] = []
        #: Whether a compiled program was made that tells of a failure without an effect that jax would wait for.
        self.is_silent = False
        #: Whether one was made that tells by an effect.
        self.has_effects = False

    def watch(self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The results of a call: looked at now if they are values, and in the compiled program if they are traced."""
        with watched_by(None):  # a derivative within this one is part of it
            if self.failed:
                self.raise_failed()
            if not in_eager_context() or any(isinstance(x, Tracer) for x in tree_leaves((args, kwargs))):
                return self._traced(name, Call(call, args, kwargs))
            result = call(*args, **kwargs)
            floats = [x for x in tree_leaves(result) if isinstance(x, jax.Array) and holds_floats(x)]
            if any(isinstance(x, Tracer) for x in floats) or not floats or all_good(floats, self.infinities):
                return result
            raise errors.NonFiniteError(self._report(name, call, args, kwargs, result))

    def _report(self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> NanReport:
        named = _Named(name, call)
        report = where_nan(named, infinities=self.infinities)(*args, **kwargs)
        return report if report.found else NanReport(name, "nan", "a result", value=result)

    # ----------------------------------------------------------------------------------------------- in compiled programs

    def _traced(self, name: str, call: Call) -> Any:
        """The results of a call that is traced, with a look at them in the program."""
        tree = None

        def run(*arrays: jax.Array) -> list[jax.Array]:
            nonlocal tree
            leaves, tree = flat(call(*arrays))
            return leaves

        arrays = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in call.arrays]
        with anew():
            program, consts = hoisted(stage(run, [typeof(x) for x in arrays]))
        operands = [*consts, *arrays]
        leaves = list(jaxpr_as_fun(program)(*operands))
        assert tree is not None
        names = [f"what the program around it computes ({i})" for i in range(len(consts))] + call.names
        failure = Failure(self, program, name, result_names(tree_unflatten(tree, leaves)), names)
        return tree_unflatten(tree, failure.look(leaves, operands))

    def raise_failed(self) -> None:
        """Raise the first report that a compiled program left."""
        with self.lock:
            failed, self.failed = self.failed, []
        if failed:
            raise errors.NonFiniteError(failed[0]())


class _Named:
    """A function with the name of the derivative that it computes, for reports."""

    def __init__(self, name: str, call: Callable[..., Any]):
        self.__name__ = name
        self.call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


class finite:
    """A block in which a derivative whose results are not finite raises an error that says where the number came from.

    The results of dualrev's transforms (``grad``, ``jvp``, ``jacobian``, the function that ``vjp`` returns, ...) are looked at:

    * of un-jitted calls, at once: the call raises;
    * of calls inside ``jax.jit`` (``jax.jit(dr.grad(f))``, a whole training step), in the compiled program, which keeps the
      arguments of a derivative that failed.  The error is raised by the next derivative that is called un-jitted in the block, by
      ``check()``, or at the end of the block, whichever is first.

    A function that was compiled outside is compiled anew in the block, once for each thread, and runs as it did outside of it.
    Blocks of other threads are not affected.  The first block of a process makes jax trace everything anew.

    The look in a compiled program is a flag that is computed with the results and, where it is False, a callback that a result passes
    through, so that results that nothing uses are not looked at.  Leaving a block waits for what it started, which takes some 10 µs.
    Where jax sees several devices, or in ``shard_map``, the callback is an effect: jax then calls the program by Python, which takes
    some 0.2 ms, little for a training step, much for a function of a few microseconds.  Of ``vjp`` and ``linearize``, what the
    map returns is looked at, not the value of the function; a derivative within another one is part of it.

    Args:
      infinities: whether infinite results raise, too.

    Raises:
      NonFiniteError: a ``FloatingPointError`` whose ``report`` is a :class:`~dualrev.inspection.finiteness.report.NanReport`.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> step = jax.jit(dr.grad(lambda x: jnp.linalg.norm(x)))
    >>> try:
    ...     with dr.finite():
    ...         _ = step(jnp.zeros(3))
    ... except dr.errors.NonFiniteError as error:
    ...     print(error.report.operation, error.report.where)
    sqrt pull

    Source: what ``jax_debug_nans`` does for operations, for derivatives.
    """

    __slots__ = ("_open", "infinities")

    def __init__(self, *, infinities: bool = True):
        self.infinities = infinities
        self._open: list[tuple[Watch, AbstractContextManager[None]]] = []

    def __enter__(self) -> finite:
        watch = _here.watches.get(self.infinities)
        if watch is None:
            watch = _here.watches[self.infinities] = Watch(self.infinities)
        context = watched_by(watch)
        context.__enter__()
        self._open.append((watch, context))
        return self

    def check(self) -> None:
        """Wait for compiled programs, and raise if a derivative in them was not finite."""
        for watch, _ in self._open[-1:]:
            wait_for(watch)
            if watch.failed:
                with watched_by(None):
                    watch.raise_failed()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        watch, context = self._open[-1]
        try:
            wait_for(watch)
            if watch.failed:
                if kind is None:
                    with watched_by(None):
                        watch.raise_failed()
                with watch.lock:
                    watch.failed.clear()
        finally:
            self._open.pop()
            context.__exit__(None, None, None)


class _OfThread(threading.local):
    """The watches of one thread, by whether infinities raise."""

    def __init__(self) -> None:
        self.watches: dict[bool, Watch] = {}


_here = _OfThread()
