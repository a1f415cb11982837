"""``engine="auto"``: which of several ways to the same derivative is predicted to be the fastest.

Each way is a function of the user's arguments.  It is traced on their shapes, priced by :mod:`dualrev.time_model`, and the cheapest is
called; the choice is kept for arguments of the same shapes.  While a program is traced, the trace of the way that was chosen is the
result of the call that made the choice.  The result is exactly that of the way that was chosen.

A way may say from counts alone (sizes, equations) that it is not worth a prediction, and why: :class:`Asking` counts for it.  The
choice and all reasons are a :class:`~dualrev.functional.choices.Choice`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev import errors, time_model
from dualrev._jax.avals import ShapedArray, is_array_like, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun
from dualrev._jax.traces import Tracer, in_eager_context, is_eager, is_staging
from dualrev._jax.trees import PyTree
from dualrev.functional import checks
from dualrev.functional.choices import Choice

P = ParamSpec("P")
Result = TypeVar("Result")

#: With more inputs than this, pushes of all of them are not even considered.
MOST_PUSHES = 256
#: Predictions are not exact: the usual way is kept unless another one's predicted time is less than this part of its own.
MARGIN = 0.75
#: What says that a way can't be taken, or that the function can't be traced: Python reads values, or an engine has no rule.
NOT_TRACED = (jax.errors.JAXTypeError, jax.errors.JAXIndexError, errors.MissingRuleError, errors.NoDerivativeError,
              errors.NonLinearError)
#: Choices that one function keeps.
MOST_CHOICES = 256


def n_entries(tree: PyTree) -> float:
    """The number of entries of all arrays; infinite where a length is a symbol."""
    shapes = [x.shape if hasattr(x, "shape") else typeof(x).shape for x in tree_leaves(tree) if hasattr(x, "shape") or is_array_like(x)]
    return sum(math.prod(n if isinstance(n, int) else math.inf for n in shape) for shape in shapes)


class Asking:
    """A call for a derivative, and what is counted of it."""

    def __init__(self, fun: Callable[..., PyTree], positions: tuple[int, ...], has_aux: bool, args: tuple[PyTree, ...],
                 kwargs: dict[str, Any], is_compiled: bool | None = None):
        self.fun = fun
        self.positions = positions
        self.has_aux = has_aux
        self.args = args
        self.kwargs = kwargs
        #: The arrays that are differentiated.
        self.inputs = tree_leaves([args[i] for i in positions])
        #: Whether what is called becomes part of a program that will be compiled.
        self.is_compiled = not is_eager(self.inputs) if is_compiled is None else is_compiled
        #: Whether that program is kept, to be called again.
        self.is_kept = is_staging() if is_compiled is None else is_compiled

    @cached_property
    def n(self) -> float:
        """Entries of the inputs."""
        return n_entries(self.inputs)

    @cached_property
    def program(self) -> ClosedJaxpr | None:
        """The function's program; None if it can't be traced."""
        arrays = [i for i, x in enumerate(self.inputs) if is_array_like(x)]
        tree = jax.tree.structure([self.args[i] for i in self.positions])

        def outs(*given: jax.Array) -> list[Any]:
            filled, args = list(self.inputs), list(self.args)
            for i, x in zip(arrays, given, strict=True):
                filled[i] = x
            for i, x in zip(self.positions, tree_unflatten(tree, filled), strict=True):
                args[i] = x
            found = self.fun(*args, **self.kwargs)
            return [x for x in tree_leaves(found[0] if self.has_aux else found) if is_array_like(x)]

        try:
            return jax.make_jaxpr(outs)(*[self.inputs[i] for i in arrays])
        except NOT_TRACED:
            return None

    @property
    def outs(self) -> list[ShapedArray] | None:
        """The types of the outputs; None if the function can't be traced."""
        return None if self.program is None else self.program.out_avals

    @cached_property
    def m(self) -> float:
        """Entries of the outputs."""
        return n_entries(self.outs)

    @cached_property
    def key(self) -> Hashable:
        """Equal for calls that are traced to equal programs: shapes and dtypes of arrays, and all else itself or by its identity."""
        leaves, tree = tree_flatten((self.args, self.kwargs))
        return (tree, self.is_compiled, self.is_kept, time_model.constants().name,
                *[typeof(x) if is_array_like(x) else _itself(x) for x in leaves])


def _itself(x: object) -> Hashable:
    try:
        hash(x)
    except TypeError:
        return id(x)
    return x


def has_few_inputs(asking: Asking) -> str | None:
    """Why a push for each input is not worth a thought."""
    return None if asking.n <= MOST_PUSHES else f"{asking.n:,.0f} inputs are more than {MOST_PUSHES} pushes"


class Way(NamedTuple):
    """A way to a derivative."""

    name: str
    call: Callable[..., Any]
    #: What a user writes to have it.
    force: str
    #: Why it is not considered, by counts alone; None if it is.
    why_not: Callable[[Asking], str | None]
    #: It is taken if its predicted time, times this, is the least.
    handicap: float = 1.0


class Special(Protocol):
    """A way whose cost depends on what it finds in the function's program: whether it is worth it, and what it found."""

    way: Way

    def found(self, asking: Asking) -> Any:
        """What the way found, or the reason why it is not worth a prediction, a str."""

    def holds(self, found: Any, asking: Asking) -> bool:
        """Whether what was found still holds for the function: it may read what has changed."""


class Decision(NamedTuple):
    """The way that was chosen, None for the fallback; what is reported of it; and what a special way found."""

    name: str | None
    choice: Choice
    found: Any = None


class Automatic(Generic[P, Result]):
    """A function that calls the way with the least predicted time, or the usual way where none is clearly faster.

    Args:
      call: the user's call.
      fun, argnums, has_aux: its function, and what it asks for.
      ways: the ways, of which those without a reason against them are priced.
      usual: the way that counts choose.
      fallback: what is called where no other way is considered, or the function can't be traced (``NOT_TRACED``): it then raises its
        own error, or runs.
      special: a further way, whose cost is known when it has been tried.
    """

    def __init__(self, call: str, fun: Callable[..., PyTree], argnums: int | Sequence[int], has_aux: bool, ways: Sequence[Way],
                 usual: Callable[[Asking], str], fallback: Callable[P, Result], special: Special | None = None,
                 kept: dict[Hashable, Decision] | None = None):
        self.call = call
        self.fun = fun
        self.positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        self.has_aux = has_aux
        self.ways: Mapping[str, Way] = {way.name: way for way in [*ways, *([special.way] if special else [])]}
        self.dense = list(ways)
        self.usual = usual
        self.fallback = fallback
        self.special = special
        self.decisions: dict[Hashable, Decision] = {} if kept is None else kept

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result:
        if not all(-len(args) <= i < len(args) for i in self.positions):
            return self.fallback(*args, **kwargs)
        asking = Asking(self.fun, self.positions, self.has_aux, args, kwargs)
        if not self._is_open(asking):
            return self.fallback(*args, **kwargs)
        traces: dict[str, Traced] = {}
        name = self.decide(asking, traces).name
        if name in traces and not in_eager_context():
            result: Result = traces[name]()
            return result
        found: Result = (self.fallback if name is None else self.ways[name].call)(*args, **kwargs)
        return found

    def plan(self, *args: P.args, **kwargs: P.kwargs) -> Choice:
        """The way that a call with these arguments takes within ``jit``, and why; and the one that it takes outside.

        A ``jax.ShapeDtypeStruct`` does for an array.  Nothing is compiled or run.
        """
        if not all(-len(args) <= i < len(args) for i in self.positions):
            raise TypeError(f"{self.call}(...).plan takes the arguments of the function, {len(args)} of which do not reach argnums="
                            f"{self.positions}")
        leaves, tree = tree_flatten((args, kwargs))
        shapes = [i for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)]
        choices: list[Choice] = []

        def ask(*given: jax.Array) -> None:
            filled = list(leaves)
            for i, x in zip(shapes, given, strict=True):
                filled[i] = x
            args, kwargs = tree_unflatten(tree, filled)
            each = [Asking(self.fun, self.positions, self.has_aux, args, kwargs, is_compiled) for is_compiled in (True, False)]
            choices.extend(self.decide(asking, {}).choice for asking in each)

        if shapes:
            jax.eval_shape(ask, *[leaves[i] for i in shapes])
        else:
            ask()
        return choices[0].with_unjitted(choices[1])

    def _is_open(self, asking: Asking) -> bool:
        """Whether counts leave more than one way."""
        if self.special is not None and self.special.way.why_not(asking) is None:
            return True
        names = [way.name for way in self.dense if way.why_not(asking) is None]
        return len(names) > 1 or (len(names) == 1 and names[0] != self.usual(asking))

    def decide(self, asking: Asking, traces: dict[str, Traced]) -> Decision:
        """The choice for arguments of these shapes; ``traces`` receives what was traced for it."""
        known = self.decisions.get(asking.key)
        if known is not None and (known.found is None or self.special.holds(known.found, asking)):  # type: ignore[union-attr]
            return known
        if len(self.decisions) >= MOST_CHOICES:
            self.decisions.clear()
        self.decisions[asking.key] = found = self._decided(asking, traces)
        return found

    def _decided(self, asking: Asking, traces: dict[str, Traced]) -> Decision:
        left_out = {way.name: why for way in self.ways.values() if (why := way.why_not(asking)) is not None}
        found = None
        if self.special is not None and self.special.way.name not in left_out:
            found = self.special.found(asking)
            if isinstance(found, str):
                left_out[self.special.way.name] = found
                found = None
        usual = self.usual(asking)
        names = [way.name for way in self.dense if way.name not in left_out]
        if found is not None:
            names = [*names, self.special.way.name]  # type: ignore[union-attr]
        if names and usual not in names:
            names = [usual, *names]
            left_out = {name: why for name, why in left_out.items() if name not in names}
        chosen: str | None = None
        times: dict[str, float] = {}
        if found is not None and not asking.is_compiled:  # predictions are for compiled programs
            chosen = self.special.way.name  # type: ignore[union-attr]
        elif len(names) > 1:
            times = _times({name: self.ways[name].call for name in sorted(names, key=lambda name: name != usual)}, asking, traces)
            chosen = self._cheapest(times, usual)
        is_special = self.special is not None and chosen == self.special.way.name
        name = chosen or usual
        choice = Choice(self.call, checks.name_of(self.fun), name, self.ways[name].force, times, left_out,
                        getattr(found, "plan", None), time_model.constants().name)
        return Decision(chosen, choice, found if is_special else None)

    def _cheapest(self, times: Mapping[str, float], usual: str) -> str | None:
        """The way to take; None if none can be traced."""
        return min(times, key=lambda name: times[name] * (MARGIN if name == usual else self.ways[name].handicap), default=None)


class Traced:
    """One way, traced on a call's arguments: a program, what it was traced on, and how its results make up the result."""

    def __init__(self, way: Callable[..., Any], positions: Sequence[int], args: tuple[PyTree, ...], kwargs: dict[str, Any]):
        leaves, tree = tree_flatten(tuple([args[i] for i in positions]))
        arrays = [i for i, x in enumerate(leaves) if is_array_like(x)]

        def on_arrays(*given: jax.Array) -> list[Any]:
            filled, all_args = list(leaves), list(args)
            for i, x in zip(arrays, given, strict=True):
                filled[i] = x
            for i, x in zip(positions, tree_unflatten(tree, filled), strict=True):
                all_args[i] = x
            results, self.out_tree = tree_flatten(way(*all_args, **kwargs))
            #: The results that are the same whatever the arguments; None in place of those that are traced.
            self.others = [None if isinstance(x, Tracer) else x for x in results]
            return [x for x in results if isinstance(x, Tracer)]

        self.operands = [leaves[i] for i in arrays]
        self.jaxpr = jax.make_jaxpr(on_arrays)(*self.operands)

    def __call__(self) -> Any:
        """The result, on the arguments that the way was traced on, without tracing it again."""
        found = iter(jaxpr_as_fun(self.jaxpr)(*self.operands))
        return tree_unflatten(self.out_tree, [next(found) if x is None else x for x in self.others])


def _times(ways: Mapping[str, Callable[..., Any]], asking: Asking, traces: dict[str, Traced]) -> dict[str, float]:
    """The predicted seconds of each way that can be traced; ``traces`` receives what was traced."""
    constants = time_model.constants()
    times: dict[str, float] = {}
    for name, way in ways.items():
        try:
            traces[name] = Traced(way, asking.positions, asking.args, asking.kwargs)
        except NOT_TRACED:
            continue
        times[name] = time_model.time_of(traces[name].jaxpr, constants)
    return times
