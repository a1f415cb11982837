"""Functions whose Python code reads values, as ``if x > 0`` does: they can't be traced, and run once more under ``jax_debug_nans``.

The first NaN that any operation makes stops them then, whether the result is due to it or not.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable

import jax

from dualrev import errors
from dualrev._jax.invalid_values import INVALID_VALUE
from dualrev._jax.source_lines import is_file_of_user
from dualrev.inspection.finiteness.causes import cause_of
from dualrev.inspection.finiteness.entries import Kind
from dualrev.inspection.finiteness.report import Operation

#: What jax raises where Python code reads the value of something that is traced.
READS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)


def first_made(run: Callable[[], object], kind: Kind) -> Operation | None:
    """The operation that stops a function under ``jax_debug_nans`` (or ``jax_debug_infs``); None if none does."""
    try:
        with jax.debug_nans(kind == "nan"), jax.debug_infs(kind == "inf"):
            run()
    except INVALID_VALUE as error:
        return _told(error, kind)
    return None


def _told(error: BaseException, kind: Kind) -> Operation:
    name, line, said = error.found if isinstance(error, errors.InvalidValueError) else ("", "", str(error))
    is_derivative = isinstance(error, errors.InvalidValueError)
    found = re.search(r"encountered in (?:jit\()?([\w.]+)", said)
    equation = found[1] if found else name or "an operation"
    where = re.match(r"(.*?):(\d+)(?::\d+)? \((.*)\)$", line)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_file_of_user(f.filename)]
    file, number, function = (where[1], int(where[2]), where[3]) if where else (
        (frames[-1].filename, frames[-1].lineno or 0, frames[-1].name) if frames else ("", 0, ""))
    direction = ("push" if "pushed" in str(error) else "pull") if is_derivative else "function"
    cause = cause_of(name or equation, is_derivative, (), "")
    return Operation(kind, name or equation, direction, file, number, function, equation, (), (), "", (), kind, (), (), (), cause.why,
                     cause.cure)
