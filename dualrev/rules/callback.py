"""Calls of the host: those that only read values have derivative zero (:mod:`dualrev.rules.zero`); those that compute raise an error,
as their derivative cannot be found.
"""

from __future__ import annotations

from dualrev._jax.primitives import primitive
from dualrev.table.forms import impossible

STATE_A_RULE = ("State the derivative of the function that makes the call, once, with @dualrev.rule (partials, a pushforward or an "
                "adjoint), or with `jax.custom_jvp`.")

impossible(primitive("pure_callback"), "Pure callbacks do not support JVP.", STATE_A_RULE)
impossible(primitive("io_callback"), "IO callbacks do not support JVP.", STATE_A_RULE)
impossible(primitive("ffi_call"), "The FFI call cannot be differentiated.", STATE_A_RULE)
impossible(primitive("buffer_callback"), "Buffer callbacks do not support JVP.", STATE_A_RULE)
