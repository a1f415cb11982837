"""Kernels that the user writes with Pallas."""

from __future__ import annotations

from dualrev._jax import pallas_call_p
from dualrev.rules.callback import STATE_A_RULE
from dualrev.rules.forms import impossible

impossible(pallas_call_p(), "A kernel's derivative is not made of those of its instructions.", STATE_A_RULE)
