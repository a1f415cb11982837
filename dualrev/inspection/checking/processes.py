"""Whether all processes of a run have values of the same types."""

from __future__ import annotations

import itertools
import json

import jax
from jax.sharding import NamedSharding
from jax.tree_util import keystr, tree_leaves_with_path

from dualrev._jax.avals import is_array_like, typeof
from dualrev._jax.processes import exchange
from dualrev._jax.trees import PyTree

#: Each check has a number of its own, the same on all processes, as they run the same checks in the same order.
_numbers = itertools.count()


def check_processes(tree: PyTree, what: str = "values", *, timeout: float = 60.0) -> None:
    """Raise an error on all processes of a run if they have values of different structure, shape, dtype or sharding.

    A collective whose operands differ in shape from process to process may wait without end, or give numbers that mean nothing.  So
    check parameters and batch before the first step, and after the number of devices has changed.  Nothing runs on devices.

    Args:
      tree: pytree of arrays.
      what: what it is, for the message.
      timeout: seconds to wait for each of the other processes.

    Raises:
      ValueError: a process differs; the message names its number, the leaf, and both types.
      TimeoutError: a process has not called this for so long: it has ended, or does something else.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> dr.testing.check_processes({"w": jnp.ones((8, 4))}, "parameters") is None  # the processes agree
    True
    """
    mine = [(keystr(path), _type_of(x)) for path, x in tree_leaves_with_path(tree)]
    found = exchange(f"dualrev/check_processes/{next(_numbers)}", json.dumps(mine), timeout)
    if silent := [i for i, text in enumerate(found) if text is None]:
        raise TimeoutError(f"check_processes: {what}: process {', '.join(map(str, silent))} of {len(found)} said nothing within "
                           f"{timeout:g} s. It has ended, or has not come to this check; see its own output")
    first = json.loads(found[0] or "")
    for i, text in enumerate(found):
        theirs = json.loads(text or "")
        if theirs == first:
            continue
        if [path for path, _ in theirs] != [path for path, _ in first]:
            raise ValueError(f"check_processes: {what} differ in structure: process 0 has {_paths(first)}, process {i} has "
                             f"{_paths(theirs)}")
        path, a, b = next((p, x, y) for (p, x), (_, y) in zip(first, theirs, strict=True) if x != y)
        raise ValueError(f"check_processes: {what}{path} differs: process 0 has {a}, process {i} has {b}")


def _type_of(x: object) -> str:
    if not is_array_like(x):
        return repr(x)
    aval = typeof(x)
    spelled = f"{aval.dtype.name}[{','.join(map(str, aval.shape))}]"
    sharding = getattr(x, "sharding", None) if isinstance(x, jax.Array) else None
    if not isinstance(sharding, NamedSharding):
        return spelled
    axes = ", ".join(f"{name}: {size}" for name, size in sharding.mesh.shape.items())
    spec = str(sharding.spec).replace("PartitionSpec(", "P(")
    return f"{spelled} as {spec} on a mesh ({axes})"


def _paths(leaves: list[list[str]]) -> str:
    return ", ".join(path or "one leaf" for path, _ in leaves) or "no leaves"
