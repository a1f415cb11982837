"""Linear maps as bytes: operations by their names, arrays as they are.

A compiled function is written as the tape of its operations.  What holds a program that is more than that (the body of a loop, a
branch, a rule that a user attached) cannot be written, and is named.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from types import NotImplementedType
from typing import TypeAlias, TypeVar

import numpy as np

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.primitives import Params, Primitive, primitive
from dualrev._jax.sharding import explicit_sharding, varying
from dualrev._jax.source_lines import line_of
from dualrev._jax.traces import Tracer
from dualrev.calls.linearization import StagedMap
from dualrev.functional.results import Structure
from dualrev.linear.algebra import MadeOfMaps
from dualrev.linear.maps import LinearMap, Tape
from dualrev.options.settings import Settings, using
from dualrev.table.operations import OpRow, Site
from dualrev.table.rows import Row, row_of

T = TypeVar("T")

#: How pickle restores an object: a function and its arguments.
Rebuilding: TypeAlias = tuple[Callable[..., object], tuple[object, ...]]


def packed(linear_map: LinearMap, structure: Structure) -> tuple[bytes, bytes]:
    """The bytes of a flat map, and of the structure around it.

    Raises:
      pickle.PicklingError: a part cannot be written; the message names it, and the user's line.
    """
    return _written(linear_map, structure), _written(structure, structure)


def rebuilt(of: Callable[[LinearMap, Structure], T], flat: bytes, structure: bytes) -> T:
    return of(pickle.loads(flat), pickle.loads(structure))


def _written(what: LinearMap | Structure, structure: Structure) -> bytes:
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=5).dump(what)
    except Exception as error:  # an object of another library may raise any error when it is pickled
        part = _culprit(what) if isinstance(what, LinearMap) else "its structure"
        raise pickle.PicklingError(f"The linear map of {structure} cannot be pickled: {part} cannot be written ({error}). "
                                   "Pickle the matrix, J.dense(), or the function's arguments, and linearize again there.") from error
    return buffer.getvalue()


def _is_written(what: LinearMap) -> bool:
    try:
        _Pickler(io.BytesIO(), protocol=5).dump(what)
    except Exception:  # as above
        return False
    return True


def _culprit(linear_map: LinearMap, line: str = "") -> str:
    """The innermost operation that cannot be written, in words."""
    if isinstance(linear_map, StagedMap):
        linear_map = linear_map.tape()
    if isinstance(linear_map, Tape):
        parts = [(part, (line_of(source) if source is not None else "") or line)
                 for (part, _, _), source in zip(linear_map.entries, linear_map.sources, strict=True)]
    elif isinstance(linear_map, MadeOfMaps):
        parts = [(part, line) for part in linear_map.inner_maps()]
    else:
        parts = []
    for part, where in parts:
        if not _is_written(part):
            return _culprit(part, where)
    return f"the operation '{linear_map.name}'{line and f' at {line}'}"


class _Pickler(pickle.Pickler):
    """A pickler that knows what maps hold."""

    def reducer_override(self, x: object) -> Rebuilding | NotImplementedType:
        if isinstance(x, Tape):
            return Tape, (x.entries, x.n_slots, x.in_slots, x.out_slots, x.wide)
        if isinstance(x, StagedMap):
            return _itself, (x.tape(),)
        if isinstance(x, Tracer):
            raise TypeError("a traced value has no number yet: pickle the map outside the traced function")
        if isinstance(x, (np.ndarray, int, float, complex)) and hasattr(x, "dtype") and type(x).__module__.startswith("jax."):
            return np.array, (np.asarray(x, x.dtype),)  # a constant of a traced program, in a class of jax's own
        if isinstance(x, ShapedArray):
            return self._aval(x)
        if isinstance(x, Primitive):
            return self._primitive(x)
        if isinstance(x, Row):
            return _row, (x.primitive, _name_in(row_of(x.primitive, "pickled"), x))
        if isinstance(x, Site):
            return _site, (x.row, x.active, x.params, x.in_avals, x.out_avals, x.settings)
        return NotImplemented  # type: ignore[no-any-return]

    @staticmethod
    def _aval(aval: ShapedArray) -> Rebuilding:
        if explicit_sharding(aval) is not None or varying(aval):
            raise TypeError("an array that is spread over a mesh of devices")
        return _aval, (aval.shape, aval.dtype, aval.weak_type)

    @staticmethod
    def _primitive(p: Primitive) -> Rebuilding:
        if primitive(p.name) is not p:
            raise TypeError(f"the primitive '{p}' is not one of jax's own, and has no name by which it could be found again")
        return primitive, (p.name,)


def _itself(x: T) -> T:
    return x


def _aval(shape: tuple[int, ...], dtype: DType, weak_type: bool) -> ShapedArray:
    return ShapedArray(shape, dtype, weak_type=weak_type)


def _name_in(found: Row, row: Row) -> str:
    """The attribute by which a row of the table holds another that it chooses; empty for itself."""
    if found is row:
        return ""
    for name, value in vars(found).items():
        if value is row:
            return name
    raise TypeError(f"the rule for '{row.primitive}' that it uses is not the one of the table")


def _row(p: Primitive, name: str) -> Row:
    found = row_of(p, "pickled")
    return getattr(found, name) if name else found


def _site(row: OpRow, active: tuple[bool, ...], params: Params, in_avals: tuple[ShapedArray, ...], out_avals: tuple[ShapedArray, ...],
          settings: Settings) -> Site:
    with using(settings):
        return Site(row, active, params, in_avals, out_avals, None)
