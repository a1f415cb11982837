"""Where the taps of a traced program stand, and what a tap gives there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, is_differentiable, key_implementation
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn
from dualrev._jax.new_primitives import tap_p
from dualrev._jax.sharding import AxisName, vary_over, varying
from dualrev._jax.source_lines import line_of
from dualrev._jax.trees import PyTreeDef
from dualrev.linear.zeros import zeros_of
from dualrev.programs.partition import eqns_within, held_eqns

#: The perturbation of each place; None where there is none.
Perturbations: TypeAlias = Sequence[jax.Array | None]


class Found(NamedTuple):
    """What a place gives in one evaluation: the value, and whether the program came there."""

    value: jax.Array
    reached: jax.Array


@dataclasses.dataclass(frozen=True)
class Place:
    """One leaf of a tap in a program.

    ``shape``: that of its values, with an axis in front for each ``vmap``, ``scan`` and ``shard_map`` around it, outermost first.
    ``varies``: the mesh axes over which the value varies, by its type.
    ``obstacle``: what keeps cotangents from it; empty where there is nothing.
    """

    name: str
    leaf: int
    tree: PyTreeDef
    shape: tuple[int, ...]
    dtype: np.dtype
    reached_shape: tuple[int, ...]
    line: str
    varies: frozenset[AxisName] = frozenset()
    obstacle: str = ""

    @staticmethod
    def of(eqn: JaxprEqn) -> Place:
        aval: ShapedArray = eqn.outvars[0].aval  # type: ignore[assignment]  # a tap is of an array
        shape = tuple([aval.shape[d] for d in in_front(aval.ndim, eqn.params["axes"])])
        return Place(eqn.params["name"], eqn.params["leaf"], eqn.params["tree"], shape, aval.dtype, (), line_of(eqn.source_info),
                     frozenset(varying(aval)))

    def stacked(self, *lengths: int) -> Place:
        """The place with axes of these lengths in front."""
        return dataclasses.replace(self, shape=(*lengths, *self.shape), reached_shape=(*lengths, *self.reached_shape))

    def behind(self, obstacle: str) -> Place:
        return dataclasses.replace(self, obstacle=self.obstacle or obstacle)

    @property
    def aval(self) -> ShapedArray:
        return ShapedArray(self.shape, self.dtype)

    @property
    def has_cotangent(self) -> bool:
        return not self.obstacle and is_differentiable(self.aval)

    def nothing(self) -> Found:
        """What the place gives where the program did not come there."""
        if jax.dtypes.issubdtype(self.dtype, jax.dtypes.prng_key):
            one = jax.random.key(0, impl=key_implementation(self.aval))
            value = lax.broadcast(one, self.shape)
        else:
            value = vary_over(zeros_of(self.aval), self.varies)
        return Found(value, lax.full(self.reached_shape, False))


def in_front(ndim: int, axes: Sequence[int]) -> list[int]:
    """The order of axes in which those that ``vmap`` added stand in front, the outermost first.

    ``axes[k]`` is where the ``vmap`` number ``k``, counted from inside, put its axis among those there were.
    """
    order = list(range(ndim))
    for front, axis in enumerate(reversed(axes)):
        order.insert(front, order.pop(front + axis))
    return order


def taps_in(program: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """The taps of a program, and of the programs that it holds."""
    return (eqn for eqn in eqns_within(program) if eqn.primitive is tap_p)


def taps_held(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """The taps of the programs that an equation holds."""
    return (inner for inner in held_eqns(eqn) if inner.primitive is tap_p)
