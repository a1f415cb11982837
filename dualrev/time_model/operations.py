"""How the operations of a jaxpr become those of a compiled program: what is free, what fuses and how.

These are facts about the compiler, by the name of the primitive; facts about an operation itself stand in its row.
"""

from __future__ import annotations

from typing import Any

from dualrev._jax.jaxprs import JaxprEqn

#: Another name or shape of the same memory.
ALIASES = frozenset((
    "reshape", "squeeze", "expand_dims", "copy", "copy_p", "name", "stop_gradient", "pvary", "optimization_barrier", "device_put",
    "sharding_constraint", "layout_constraint", "reshard", "bitcast_convert_type", "xla_metadata_value", "stage", "real_of_real", "tap",
    "perturbed", "mesh_cast", "random_wrap", "random_unwrap",
))
#: Some entries of one operand.
GATHERS = frozenset(("slice", "dynamic_slice", "gather", "split", "unstack"))
#: Each entry from one operand or another.
JOINS = frozenset(("concatenate", "pad", "stack"))
REDUCTIONS = frozenset((
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin", "reduce",
))
#: A compiler computes these again rather than store them.
SIMPLE = frozenset((
    "add", "add_any", "sub", "mul", "neg", "max", "min", "and", "or", "xor", "not", "abs", "sign", "floor", "ceil", "round", "clamp",
    "select_n", "convert_element_type", "eq", "ne", "lt", "le", "gt", "ge", "eq_to", "lt_to", "le_to", "is_finite", "real", "imag",
    "complex", "conj", "square", "integer_pow", "shift_left", "shift_right_logical", "shift_right_arithmetic", "clz",
    "population_count", "mulhi", "reduce_precision", "one_minus_square", "polynomial",
))
#: A compiler computes these again too, for real numbers, although they take long: see ``InstructionFusion::IsExpensive``.
DUPLICATED = frozenset(("sin", "cos", "tan", "sinh"))
#: What processors have an instruction for.
QUICK = frozenset(("div", "sqrt", "rsqrt"))
#: Functions that a kernel calculates for several entries at once.
VECTORISED = frozenset(("div", "sqrt", "rsqrt", "exp", "exp2", "log1p", "expm1", "tanh", "logistic", "erf", "cbrt"))
#: Moves that keep the number of entries.
MOVES_WITHIN = frozenset(("transpose", "rev", "iota"))
#: Calls whose program runs once, in their place.
INLINED = frozenset((
    "jit", "pjit", "closed_call", "call", "core_call", "remat2", "checkpoint", "remat_opt", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "custom_lin", "shard_map", "composite", "custom_vmap_call", "eval_jaxpr", "run_state", "region",
))


def program_of(eqn: JaxprEqn) -> Any:
    """The one program that an equation runs, or None."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call"):
        found = eqn.params.get(name)
        if found is not None and (hasattr(found, "eqns") or hasattr(found, "jaxpr")):
            return found
    return None
