"""Operations that have a differentiation rule in jax and no row in this table, each with the reason.

All are internal to jax or experimental.  Differentiating one raises MissingRuleError, which quotes the reason.
"""

from __future__ import annotations

_HIJAX = "hijax is experimental, and how its operations state their derivatives changes from release to release"
_LINEARIZE = "jax's own linearize binds it, and nothing else"

EXCLUDED = {
    "box_get": _HIJAX,
    "box_set": _HIJAX,
    "new_box": _HIJAX,
    "new_log": _HIJAX,
    "log_extend": _HIJAX,
    "log_read": _HIJAX,
    "call_hi_primitive_linearized": _HIJAX,
    "accum_grad_in_ref": _HIJAX,
    "custom_lin": _LINEARIZE,
    "get_global": "memory that a Pallas kernel shares with others, whose tangent cannot be found",
    "mpmd_map": "a Pallas kernel over several programs at once, whose public interface is not settled",
}

#: Operations without a row, which the engines handle themselves.
BY_ENGINES = {
    "custom_jvp_call": "engines/custom_derivatives.py",
    "custom_vjp_call": "engines/custom_derivatives.py",
    "call": "engines/forward.py, engines/reverse.py",
    "closed_call": "engines/forward.py, engines/reverse.py",
}
