"""How a compiler fuses single operations, which is read off its sources and its programs: long reductions, sums by a library, joins.

Source: ``xla/service/cpu/cpu_instruction_fusion.cc``, ``tree_reduction_rewriter.cc`` and ``ynn_support.cc``; what they make of small
programs is tested (``tests/test_compiled_contracts.py``).
"""

from __future__ import annotations

from dualrev._jax.one_kernel import RELEASE
from dualrev.time_model.operations import DUPLICATED, MOVES_WITHIN, SIMPLE
from dualrev.time_model.reading import Operation, is_real, shape_of, size_of

#: Axes longer than this are reduced in two kernels.
WINDOW = 32
#: A library reduces at least so many numbers, if they are real.
LIBRARY_SUM = 4096
#: A join along the last of several axes is a kernel, and so is each of its operands, if that axis has at least so many entries; in jax
#: 0.12, so many bytes.
LONG_JOIN = 128
LONG_JOIN_BYTES = 304
#: What it computes besides, where nothing else needs it.
WITHIN_LIBRARY = frozenset((
    "abs", "add", "add_any", "broadcast_in_dim", "ceil", "convert_element_type", "div", "erf", "exp", "expm1", "floor", "integer_pow",
    "log", "log1p", "logistic", "max", "min", "mul", "neg", "pow", "rsqrt", "sign", "sqrt", "square", "sub", "tanh",
)) | (frozenset(("sin", "cos", "tan")) if RELEASE >= (0, 12) else frozenset())


def is_windowed(op: Operation) -> bool:
    """Whether a reduction of long axes sums windows first, which it reads from memory."""
    if is_of_library(op):
        return False
    if op.kind != "reduce" or len(op.outs) > 1 or not op.name.startswith("reduce"):
        return False
    shape = shape_of(op.eqn.invars[0].aval)
    return any(shape[i] > WINDOW for i in op.eqn.params.get("axes", ()))


def is_of_library(op: Operation) -> bool:
    """Whether a library computes a reduction."""
    if op.name not in ("reduce_sum", "reduce_max", "reduce_min"):
        return False
    aval = op.eqn.invars[0].aval
    return size_of(aval) >= LIBRARY_SUM and is_real(aval)


def is_within_library(op: Operation) -> bool:
    """Whether a library computes an operation before it reduces.  A product with a mask is a selection for the compiler."""
    return op.name in WITHIN_LIBRARY and not (op.name == "mul" and any(v is not None and _is_mask(v.maker) for v in op.ins))


def _is_mask(op: Operation | None) -> bool:
    """Whether an operation makes numbers of booleans."""
    return op is not None and op.name == "convert_element_type" and str(getattr(op.eqn.invars[0].aval, "dtype", "")) == "bool"


def is_within_rows(op: Operation) -> bool:
    """Whether a join puts something beside something else on the last axis."""
    last = len(shape_of(op.outs[0].aval)) - 1
    if op.name == "pad":
        return tuple(op.eqn.params["padding_config"][-1]) != (0, 0, 0)
    return int(op.eqn.params.get("dimension", op.eqn.params.get("axis", last))) == last


def is_long_join(op: Operation) -> bool:
    """Whether a join is not computed within the kernel that reads it, nor its operands within its own."""
    shape = shape_of(op.outs[0].aval)
    if op.name != "concatenate" or len(shape) == 1 or int(op.eqn.params["dimension"]) != len(shape) - 1:
        return False
    return shape[-1] * op.outs[0].itemsize >= LONG_JOIN_BYTES if RELEASE >= (0, 12) else shape[-1] >= LONG_JOIN


def is_costly(op: Operation) -> bool:
    """Whether an operation is not computed twice for the sake of fusion."""
    return op.kind == "reduce" or (op.kind == "entry" and op.name not in SIMPLE and op.name not in MOVES_WITHIN and
                                   op.name not in DUPLICATED)
