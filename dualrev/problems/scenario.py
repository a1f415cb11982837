"""What a scenario is: a program, stated once, for everyone who differentiates it.

The command ``python -m dualrev``, the tests, the fuzzer and the benchmarks draw their programs from one list:

- ``dualrev/problems/`` has what the command shows: real problems, which ship with the package;
- ``benchmarks/scenarios/`` has the others, a file for each family, and in its ``SCENARIOS`` the whole list, the shipped ones included;
- ``tests/scenarios_*.py`` add what only tests can draw: random programs, and calls of the functional face.

How to add one: write the function, and a ``draw`` that gives its inputs and data from a seed, in the file of its family; put a
``Scenario`` into the list at the end of that file, with its sizes and with tags that say what it is for (``TAGS``).  That is all: who
selects a tag finds it there.

>>> import numpy as np
>>> def energy(x, weights):
...     return (weights * x**2).sum()
>>> scenario = Scenario("energy", energy, lambda: (np.ones(3), np.arange(3.0)), tags=("correctness",), inputs=3, outputs=1)
>>> float(scenario.function(scenario.make_inputs()))
3.0
>>> Scenarios([scenario]).select("correctness")
(Scenario('energy'),)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from types import ModuleType

import jax

from dualrev._jax.trees import PyTree

#: What a scenario can be for.
TAGS: Mapping[str, str] = {
    "tour": "shown by `python -m dualrev`: real data, in full by both engines in a second or two",
    "correctness": "small: tests compare both engines with jax on it, to its order",
    "random": "drawn by the fuzzer",
    "face": "a call of the functional face, whose arguments and results are the point",
    "weak types": "of the face: on Python scalars, whose derivatives must not widen what they are combined with",
    "libraries": "every call is timed in every library, and the guard counts its gradient",
    "hessian": "its Hessian is timed in every library",
    "jacobian": "its Jacobian is timed in every library",
    "sparse": "a system of equations whose Jacobian is sparse but for some rows and columns",
    "gradbench": "a workload of GradBench",
    "compiled": "figures: compiled gradients over jax's",
    "loops": "figures: gradients of scans over jax's",
    "while": "figures: loops of a length that only running them tells, and the scans that they are compared with",
    "sparse through loops": "papers: its Hessian is sparse, through loops of a length that only running them tells",
    "second order": "figures: products with its Hessian over its gradient",
    "residuals": "figures: what its derivative keeps",
    "tuning": "corpus: what the speed of compiled gradients is tuned on",
    "held out": "corpus: what nobody tunes on",
    "Runge-Kutta": "corpus: a Runge-Kutta loop whose gradient should cost a few times its function, at any size",
    "straight": "corpus: takes entries one by one in Python, so that equations are as many as entries",
    "guards": "corpus: networks, which must not get slower",
    "guarded": "the guard counts its gradient, as it does where every call is timed",
    "tracing": "figures: tracing its gradient over jax's",
    "un-jitted": "figures: its un-jitted gradient and push over jax's",
}


@dataclass(frozen=True, eq=False, repr=False)
class Scenario:
    """A function, a point to differentiate it at, and what it is for.

    ``program`` takes a pytree of arrays, by which it is differentiated, and then its data; ``draw()`` gives both, the same numbers at
    each call.

    >>> from dualrev.problems import PROBLEMS
    >>> PROBLEMS[0].name, PROBLEMS[0].order
    ('linear model', 2)
    """

    name: str
    #: None where the program differentiates itself, so that there is only ``derivative``.
    program: Callable[..., PyTree] | None
    draw: Callable[[], tuple[PyTree, ...]]
    _: KW_ONLY
    tags: Iterable[str] = ()
    #: Numbers that it is differentiated by, and numbers that it gives; None where ``derivative`` says by what it is differentiated.
    inputs: int | None = None
    outputs: int | None = None
    #: Steps of its longest scan, which is a loop in Python where a library has none.
    steps: int = 0
    #: The highest order of derivative that makes sense at the point.
    order: int = 2
    #: The engines that it can be pulled through.
    engines: tuple[str, ...] = ("forward", "reverse")
    #: Relative tolerance, where rounding alone exceeds that of its dtype.
    rtol: float = 0.0
    #: An equivalent program, where jax cannot differentiate this one.
    oracle: Callable[..., PyTree] | None = None
    #: What is asked for instead of the gradient, by a library with jax's calls, such as a Jacobian that is known to be sparse.
    derivative: Callable[[ModuleType], Callable[..., PyTree]] | None = None
    #: That derivative as jax finds it in another way, where it has none in this one.
    otherwise: Callable[[], PyTree] | None = None
    #: The program of an array namespace ahead of its arguments, where libraries other than jax can run it.
    portable: Callable[..., PyTree] | None = None
    #: One sentence, and a source.
    description: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if unknown := set(self.tags) - set(TAGS):
            raise ValueError(f"{self.name}: no tag {', '.join(sorted(unknown))}; there are {', '.join(TAGS)}")

    def __repr__(self) -> str:
        return f"Scenario({self.name!r})"

    def make_inputs(self) -> PyTree:
        """The pytree that it is differentiated by."""
        return jax.tree.map(jax.numpy.asarray, self.draw()[0])

    @functools.cached_property
    def data(self) -> tuple[PyTree, ...]:
        """What follows the inputs, drawn once, outside whatever is being traced."""
        with jax.ensure_compile_time_eval():
            return tuple(jax.tree.map(jax.numpy.asarray, self.draw()[1:]))

    def function(self, inputs: PyTree) -> PyTree:
        """The program with its data as constants."""
        if self.program is None:
            raise NotImplementedError(f"{self.name} is differentiated inside")
        return self.program(inputs, *self.data)

    def function_in_jax(self, inputs: PyTree) -> PyTree:
        """The same function, as jax can differentiate it."""
        return self.function(inputs) if self.oracle is None else self.oracle(inputs, *self.data)


def alone(make_inputs: Callable[[], PyTree]) -> Callable[[], tuple[PyTree, ...]]:
    """The draw of a program that has no data."""
    return lambda: (make_inputs(),)


class Scenarios:
    """Scenarios in order, to be had by name and by tag."""

    def __init__(self, *lists: Iterable[Scenario]):
        self._by_name: dict[str, Scenario] = {}
        for scenario in (scenario for found in lists for scenario in found):
            if scenario.name in self._by_name:
                raise ValueError(f"there are two scenarios of the name {scenario.name!r}")
            self._by_name[scenario.name] = scenario

    def __iter__(self) -> Iterator[Scenario]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Scenario:
        return self._by_name[name]

    def select(self, *tags: str) -> tuple[Scenario, ...]:
        """Those that have all of the tags."""
        if unknown := set(tags) - set(TAGS):
            raise ValueError(f"no tag {', '.join(sorted(unknown))}; there are {', '.join(TAGS)}")
        return tuple(scenario for scenario in self if set(tags) <= set(scenario.tags))
