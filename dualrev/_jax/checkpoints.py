"""``jax.checkpoint``: its primitives, and the answers of its policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from jax._src.ad_checkpoint import name_p as name_p  # jax.ad_checkpoint.checkpoint_name
from jax._src.ad_checkpoint import remat_p as remat_p  # jax.checkpoint
from jax._src.core import NamedAxisEffect as _NamedAxisEffect  # that an operation is over an axis of a mesh counts as an effect
from jax._src.core import mem_kind_to_space as _space_of  # the memory space of the name of a memory
from jax._src.effects import remat_allowed_effects as _replayable  # the effects that may happen once more in a checkpoint
from jax._src.interpreters import partial_eval as _partial_eval  # what a checkpoint policy may answer beside True and False

from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn

#: The answer of a checkpoint policy for an operation, whether its results are stored: a truth value or a marker of jax's.
Answer: TypeAlias = bool | type[_partial_eval.SaveableType]

#: A memory that arrays lie in: that of the device, or that of the host.
MemorySpace: TypeAlias = Any

#: A checkpoint policy: ``policy(primitive, *avals, **params)``.
Policy: TypeAlias = Callable[..., Answer]


def policy_saves(policy: Policy, eqn: JaxprEqn) -> bool:
    """Whether a checkpoint policy stores the results of an equation; one that offloads them does.

    Policies answer with a truth value or a marker of their own.
    """
    answer = policy(eqn.primitive, *[atom.aval for atom in eqn.invars], **eqn.params)
    if isinstance(answer, (_partial_eval.SaveableType, _partial_eval.Offloadable)):
        return True
    return not isinstance(answer, _partial_eval.RecomputeType) and bool(answer)


def offloaded_to(policy: Policy | None, eqn: JaxprEqn) -> MemorySpace | None:
    """The memory in which a checkpoint policy stores the results of an equation, if it is another one than the device's own."""
    answer = None if policy is None else policy(eqn.primitive, *[atom.aval for atom in eqn.invars], **eqn.params)
    return _space_of(answer.dst) if isinstance(answer, _partial_eval.Offloadable) else None


def has_effects(eqn: JaxprEqn) -> bool:
    """Whether an equation does anything but compute its results; a collective does not."""
    return any(not isinstance(effect, _NamedAxisEffect) for effect in eqn.effects)


def lasting_effects(jaxpr: ClosedJaxpr | Jaxpr | JaxprEqn) -> list[str]:
    """The effects of a program, or of an equation, that must not happen a second time."""
    return sorted(map(str, _replayable.filter_not_in(jaxpr.effects)))
