"""``jax.checkpoint``: its primitives, and the answers of its policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from jax._src.ad_checkpoint import name_p as name_p  # jax.ad_checkpoint.checkpoint_name
from jax._src.ad_checkpoint import remat_p as remat_p  # jax.checkpoint
from jax._src.effects import remat_allowed_effects as _replayable  # the effects that may happen once more in a checkpoint
from jax._src.interpreters import partial_eval as _partial_eval  # what a checkpoint policy may answer beside True and False

from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn

#: The answer of a checkpoint policy for an operation, whether its results are stored: a truth value or a marker of jax's.
Answer: TypeAlias = bool | type[_partial_eval.SaveableType]

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


def lasting_effects(jaxpr: ClosedJaxpr | Jaxpr | JaxprEqn) -> list[str]:
    """The effects of a program, or of an equation, that must not happen a second time."""
    return sorted(map(str, _replayable.filter_not_in(jaxpr.effects)))
