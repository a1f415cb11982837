"""What a checkpoint stores: the automatic policy, and those of ``jax.checkpoint_policies`` under their own names.

A policy is a function ``policy(primitive, *avals, **params)`` that says of one operation whether its results may be stored.
:data:`min_cut` looks at the whole program instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from dualrev.calls.checkpoint_policies import MinCut as MinCut
from dualrev.calls.checkpoint_policies import Scheduled as Scheduled
from dualrev.calls.checkpoint_policies import min_cut as min_cut

__all__ = ["MinCut", "Scheduled", "min_cut"]


def __getattr__(name: str) -> Callable[..., Any]:  # a policy, or what makes one
    found: Callable[..., Any] = getattr(jax.checkpoint_policies, name)
    return found
