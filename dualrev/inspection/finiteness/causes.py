"""The usual causes of NaN and infinities, and what to do: one entry for each kind of fault.

An entry fits an operation (``operations``) or a function of jax's that it stands in (``functions``), in the function itself or in its
derivative.  The first entry that fits is the one that is shown; functions are looked up before operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

In = Literal["function", "derivative", "both"]

_DOUBLE_WHERE = "choose the operand before the operation as well: y = where(ok, x, 1.0); where(ok, f(y), 0.0)"
_ZERO_WINS = "zero_wins=True makes the product of 0 and infinity 0"


@dataclass(frozen=True)
class Cause:
    """Why an operation makes a NaN or an infinity, and the cure.

    ``where``: in the value of the operation, in its derivative, or in both.  ``because``: how the number came about (``0 * inf``,
    ``inf - inf``, ``0 / 0``), where an entry is about that alone.
    """

    operations: tuple[str, ...]
    where: In
    why: str
    cure: str
    functions: tuple[str, ...] = ()
    because: str = ""


CAUSES: Sequence[Cause] = (
    # ------------------------------------------------------------------------------------------- functions of jax
    Cause((), "derivative", "the norm has no derivative at zero: it is x / norm(x), 0 / 0",
          f"{_ZERO_WINS}, which gives the subgradient 0; or sqrt(sum(x ** 2) + eps)", ("norm", "vector_norm", "_norm")),
    Cause((), "derivative", "a standard deviation has no derivative where all values are equal: it is the square root of 0",
          "sqrt(var(x) + eps), or var(x)", ("std", "_std", "nanstd")),
    Cause((), "both", "the logarithm of a sum of exponentials that are all zero: every entry is -inf, and the maximum is -inf too",
          "keep one entry finite: a large negative number in place of -inf in the mask", ("logsumexp", "_logsumexp")),
    Cause((), "both", "a softmax over entries that are all -inf: each is exp(-inf - -inf)",
          "keep one entry finite in each row: a large negative number in place of -inf in the mask",
          ("softmax", "_softmax", "log_softmax", "_log_softmax")),
    Cause((), "both", "a correlation or a standardization divides by a standard deviation, which is 0 for constant values",
          "add a small eps to the divisor", ("corrcoef", "standardize", "normalize")),
    Cause((), "both", "the determinant is zero or negative: its logarithm is -inf, and the gradient is the inverse matrix",
          "add a multiple of the identity to the matrix", ("slogdet", "_slogdet_lu", "_slogdet_qr", "logdet", "det")),
    Cause((), "both", "the distance of a point to itself has no derivative: it is the square root of 0",
          f"{_ZERO_WINS}; or leave the diagonal out before the root", ("hypot", "pdist", "cdist")),
    # --------------------------------------------------------------------------------------------- roots and powers
    Cause(("sqrt", "rsqrt", "cbrt"), "derivative", "the slope of a root is infinite at 0, and infinity times a cotangent of 0 is NaN",
          f"{_ZERO_WINS}; {_DOUBLE_WHERE}; or sqrt(x + eps)"),
    Cause(("sqrt", "rsqrt"), "function", "the root of a negative number is NaN, and 1 / sqrt(0) is infinite",
          f"clip the operand at 0 (rounding makes small negative numbers), or add eps; in a branch that where does not take, "
          f"{_DOUBLE_WHERE}"),
    Cause(("pow",), "derivative", "x ** y has an infinite slope at x = 0 for y < 1, and by y it has x ** y * log(x), which is 0 * -inf",
          f"{_ZERO_WINS}; {_DOUBLE_WHERE}; an exponent that is a Python number is not differentiated"),
    Cause(("pow",), "function", "a negative number to a power that is no integer is NaN, and 0 to a negative power is infinite",
          "take the power of abs(x) or of a clipped operand; an integer power is right for negative numbers (x ** 3)"),
    Cause(("integer_pow",), "both", "0 to a negative power is infinite", _DOUBLE_WHERE),
    # --------------------------------------------------------------------------------------------------- logarithms
    Cause(("log", "log2", "log1p"), "function", "the logarithm of 0 is -inf, that of a negative number NaN",
          f"log(x + eps), or {_DOUBLE_WHERE}; log_softmax or logsumexp in place of log(softmax(x)); xlogy(x, y) for x log y"),
    Cause(("log", "log2", "log1p"), "derivative", "the slope of the logarithm is 1 / x, infinite at 0, and infinity times 0 is NaN",
          f"{_DOUBLE_WHERE}; {_ZERO_WINS}; or log(x + eps)"),
    # ----------------------------------------------------------------------------------------------------- quotients
    Cause(("div",), "both", "0 / 0 is NaN, and a number divided by 0 is infinite; so are the factors of its derivative, 1/y and x/y²",
          f"{_DOUBLE_WHERE}; a vector that is divided by its length: x / sqrt(sum(x ** 2) + eps)"),
    Cause(("rem",), "both", "a remainder by 0 is NaN", _DOUBLE_WHERE),
    # ------------------------------------------------------------------------------------- exponentials and the like
    Cause(("exp", "exp2", "expm1", "sinh", "cosh"), "both", "the exponential overflows: above 88.7 in float32, 709.8 in float64",
          "subtract the maximum first (logsumexp, softmax do), or work with logarithms"),
    Cause(("tan",), "both", "the tangent is infinite at odd multiples of pi/2", "keep the operand away from them"),
    # -------------------------------------------------------------------------------------------- inverse functions
    Cause(("acos", "asin", "acosh", "atanh"), "derivative", "the slope is infinite at the ends of the domain (±1)",
          "clip inside of the domain: clip(x, -1 + eps, 1 - eps); for angles of vectors, arctan2(norm(cross(a, b)), dot(a, b))"),
    Cause(("acos", "asin", "acosh", "atanh", "erf_inv"), "function", "the operand lies outside of the domain, or at its end",
          "clip it: rounding makes 1.0000001 of the product of unit vectors"),
    Cause(("erf_inv",), "derivative", "the slope is infinite at the ends of the domain (±1)", "clip(x, -1 + eps, 1 - eps)"),
    Cause(("atan2",), "both", "the angle of the zero vector has no derivative: it is 0 / 0", _DOUBLE_WHERE),
    Cause(("sign", "abs"), "both", "the derivative of a complex modulus is 0 / 0 at 0", _DOUBLE_WHERE),
    Cause(("lgamma", "digamma", "polygamma", "zeta"), "both", "a pole: the function is infinite at 0 and at negative integers",
          "keep the operand positive"),
    # ------------------------------------------------------------------------------------------------- linear algebra
    Cause(("cholesky",), "both", "the matrix is not positive definite, or not numerically: the factorization is NaN as a whole",
          "add a multiple of the identity (jitter), say 1e-6 times the mean of the diagonal; check that it is symmetric"),
    Cause(("eigh", "eig", "svd", "schur", "tridiagonal"), "derivative",
          "the derivative of eigenvectors (singular vectors) divides by differences of eigenvalues, and two are equal",
          "split_repeated=True is right where the function has a derivative; or use eigenvalues alone"),
    Cause(("eigh", "eig", "svd", "qr", "geqrf", "householder_product", "schur"), "both",
          "the factorization of a matrix with NaN or infinities, or a rank that is too small for its derivative",
          "look at the matrix; add a multiple of the identity"),
    Cause(("lu", "triangular_solve", "lu_solve", "custom_linear_solve", "tridiagonal_solve", "lu_pivots_to_permutation"), "both",
          "the matrix is singular: a pivot is 0", "add a multiple of the identity, or solve by least squares"),
    # ----------------------------------------------------------------------------------------------------- the others
    Cause(("cumprod", "reduce_prod", "cumlogsumexp"), "derivative", "the derivative of a product divides by a factor that is 0",
          "exp(sum(log(x))) of positive factors, or a product of pairs"),
    Cause(("gather", "dynamic_slice", "scatter", "scatter_add"), "both", "an index lies outside of the array: the fill value is NaN",
          "check the indices, or mode='clip'"),
    Cause(("max", "min", "reduce_max", "reduce_min", "argmax"), "both", "the extreme value of an empty array, or of infinities alone",
          "pass initial="),
    Cause(("mul", "dot_general", "conv_general_dilated"), "both", "0 times infinity is NaN",
          f"find what made the infinity; {_ZERO_WINS} where it is a derivative; {_DOUBLE_WHERE}", because="0 * inf"),
    Cause(("add", "sub", "reduce_sum", "cumsum", "add_any", "psum"), "both", "infinity minus infinity is NaN",
          "find what made the infinities; subtract maxima before exponentials", because="inf - inf"),
    Cause(("mul", "integer_pow", "square", "dot_general", "add", "sub", "reduce_sum", "cumsum", "cumprod", "reduce_prod"), "both",
          "the result is too large for its dtype", "scale the values, or use a wider dtype"),
    Cause(("convert_element_type",), "both", "the number is too large for the narrower dtype",
          "scale the values (loss scaling), or use bfloat16 in place of float16"),
    Cause(("constant",), "both", "the number stands in the program, or was computed before it",
          "look at what the function closes over"),
    Cause(("input",), "both", "the number was given: an argument holds it", "look at the data"),
)

#: Where nothing else fits.
DEFAULT = Cause((), "both", "the operation has no finite value, or no finite derivative, at these operands",
                f"keep the operands where it has; {_DOUBLE_WHERE}; {_ZERO_WINS} where it is a derivative")


def cause_of(operation: str, is_derivative: bool, functions: Sequence[str], because: str) -> Cause:
    """The entry for an operation, in its value or its derivative, within these functions (innermost first)."""
    where = "derivative" if is_derivative else "function"
    fits = [cause for cause in CAUSES if cause.where in (where, "both") and cause.because in ("", because)]
    for name in functions:
        for cause in fits:
            if name in cause.functions:
                return cause
    return next((cause for cause in fits if operation in cause.operations), DEFAULT)
