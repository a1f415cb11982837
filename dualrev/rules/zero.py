"""Operations whose derivative is zero almost everywhere, or that have no differentiable output.

At the points where such an operation jumps (``floor`` at a whole number, ``sign`` at 0, a comparison at a tie) the derivative
is zero too, as in jax.  Operations on integers and random keys have a row here as well, so that none is missing by mistake.
"""

from __future__ import annotations

from dualrev._jax.primitives import primitive
from dualrev.table.rows import Cost, zero

#: ``sign`` has derivative zero for real numbers only; its row is in elementwise.py.
STEPS = "floor ceil round"

COMPARISONS = "eq ne ge gt le lt eq_to le_to lt_to is_finite"

BITS = "not and or xor shift_left shift_right_arithmetic shift_right_logical population_count clz mulhi"

#: The same bits as another dtype, and counting.
MOVES = "bitcast_convert_type iota"

POSITIONS = "argmax argmin"

LOGICAL_REDUCTIONS = "reduce_and reduce_or reduce_xor"

#: Values that the user, or an algorithm, declares constant.
CONSTANTS = "stop_gradient"

#: Operations that only read a value.
OBSERVERS = "debug_callback debug_print check dce_sink"

RANDOM = "random_seed random_bits random_split random_wrap random_unwrap random_fold_in random_clone rng_bit_generator"

COSTS: dict[Cost, str] = {
    "entrywise": f"{STEPS} {COMPARISONS} {BITS}",
    "moves": f"{CONSTANTS} {MOVES}",
    "work": f"{POSITIONS} {LOGICAL_REDUCTIONS} {OBSERVERS} {RANDOM}",
}
for cost, names in COSTS.items():
    for name in names.split():
        found = primitive(name)
        if found is not None:
            zero(found, cost=cost)
