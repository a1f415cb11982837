"""Plans: how a sparse Jacobian or Hessian will be found, to look at, to keep in a file, and to hand to later calls."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jax.sharding import Mesh

from dualrev._jax.avals import ShapedArray
from dualrev.sparse import meshes, pictures
from dualrev.sparse.boolean import boolean_bcoo
from dualrev.sparse.colouring.positions import Positions
from dualrev.sparse.colouring.recovery import Colouring, Level
from dualrev.time_model import time_in_words

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO

Kind: TypeAlias = Literal["jacobian", "hessian"]
#: Shape and dtype of an array.
Type: TypeAlias = tuple[tuple[int, ...], str]
FILE_VERSION = 1


def types_of(avals: Sequence[ShapedArray]) -> tuple[Type, ...]:
    return tuple((tuple(a.shape), a.dtype.name) for a in avals)


@dataclass(frozen=True, eq=False)
class Plan:
    """A pattern, its colours, and what they cost.

    ``print`` shows it, a notebook draws it.  ``forward_colours`` passes are pushes, ``reverse_colours`` are pulls.

    Attributes:
      kind: ``"jacobian"`` or ``"hessian"``.
      name: the function's.
      colouring: positions of the entries, and the colours of rows and columns.
      out_types, in_types: shapes and dtypes of outputs and inputs.
      costs: predicted seconds of one push and of one pull; without a prediction, 1.0 of each.
      seconds: predicted seconds of one evaluation of the whole matrix.
      mesh: the devices that share the passes, or None for those that the arguments lie on.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> plan = dr.sparse.plan(lambda x: x[1:] * x[:-1], jnp.ones(5))
    >>> plan.shape, plan.nnz, plan.forward_colours, plan.reverse_colours
    ((4, 5), 8, 2, 0)
    """

    kind: Kind
    name: str
    colouring: Colouring
    out_types: tuple[Type, ...]
    in_types: tuple[Type, ...]
    #: Predicted seconds of one push and of one pull; without a prediction, 1.0 of each.
    costs: tuple[float, float] = (1.0, 1.0)
    #: Predicted seconds of one evaluation of the whole matrix.
    seconds: float | None = None
    #: The devices that take the passes together, each as many as others; None for those that the arguments lie on.
    mesh: Mesh | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns: elements of outputs and of inputs."""
        return self.colouring.positions.shape

    @property
    def nnz(self) -> int:
        """How many entries may be nonzero."""
        return self.colouring.positions.nnz

    @property
    def forward_colours(self) -> int:
        """How many vectors are pushed."""
        return self.colouring.n_forward

    @property
    def reverse_colours(self) -> int:
        """How many vectors are pulled."""
        return self.colouring.n_reverse

    @property
    def column_colours(self) -> np.ndarray:
        """The colour of each column, -1 where it is not pushed."""
        return self.colouring.column_colours.copy()

    @property
    def row_colours(self) -> np.ndarray:
        """The colour of each row, -1 where it is not pulled."""
        return self.colouring.row_colours.copy()

    @property
    def pattern(self) -> BCOO:
        """The entries that may be nonzero, as a BCOO of booleans."""
        positions = self.colouring.positions
        return boolean_bcoo(np.stack([positions.rows, positions.columns], 1), self.shape)

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest passes with columns alone, and with rows alone: the entries of the fullest row, and of the fullest column."""
        positions = self.colouring.positions
        return int(positions.row_degrees.max(initial=0)), int(positions.column_degrees.max(initial=0))

    def __str__(self) -> str:
        (m, n), found = self.shape, self.colouring
        passes = found.n_forward + found.n_reverse
        how = "each entry is read directly" if found.is_direct else f"entries follow by substitution in {len(found.levels)} levels"
        lines = [f"{self.kind.capitalize()} of {self.name}: {m:,} x {n:,}, {self.nnz:,} entries may be nonzero "
                 f"({100 * self.nnz / max(m * n, 1):.3g} %)",
                 f"{passes} passes: {found.n_forward} forward, {found.n_reverse} reverse; {how}",
                 f"columns alone take at least {self.bounds[0]:,}, rows alone {self.bounds[1]:,}; dense {min(m, n):,}"]
        if self.seconds is not None:
            push, pull = self.costs
            lines.append(f"predicted {time_in_words(self.seconds)}; {time_in_words(push)} for one more push, {time_in_words(pull)} for "
                         "one more pull")
        if self.mesh is not None:
            most = -(-found.n_forward // self.mesh.size), -(-found.n_reverse // self.mesh.size)
            lines.append(f"on {self.mesh.size} devices ({meshes.spelled(self.mesh)}), each of which takes at most {most[0]} "
                         f"forward and {most[1]} reverse passes")
        return "\n".join([*lines, pictures.text(found)])

    def __repr__(self) -> str:
        m, n = self.shape
        return (f"<plan for the {self.kind} of {self.name}, {m} x {n}: {self.forward_colours} forward and {self.reverse_colours} "
                f"reverse colours for {self.nnz} entries>")

    def _repr_svg_(self) -> str:
        return pictures.svg(self.colouring)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a file (NumPy's ``.npz``), for :func:`dualrev.sparse.load`."""
        found = self.colouring
        head = {"version": FILE_VERSION, "kind": self.kind, "name": self.name, "out_types": self.out_types, "in_types": self.in_types,
                "costs": self.costs, "seconds": self.seconds, "mesh": None if self.mesh is None else list(self.mesh.shape.items()),
                "shape": self.shape, "is_symmetric": found.is_symmetric,
                "levels": len(found.levels)}
        arrays = {"indptr": found.positions.indptr, "columns": found.positions.columns, "column_colours": found.column_colours,
                  "row_colours": found.row_colours, "source": found.source}
        for part in ("source", "known", "owner") if found.levels else ():
            each = [getattr(level, part) for level in found.levels]
            arrays[f"level_{part}"], arrays[f"level_{part}_ends"] = np.concatenate(each), np.cumsum([len(x) for x in each])
        with open(path, "wb") as file:
            np.savez_compressed(file, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def load(path: str | os.PathLike[str], *, mesh: Mesh | None = None) -> Plan:
    """The plan that :meth:`Plan.save` wrote.

    Args:
      path: of the file, whose name ends in ``.npz``.
      mesh: the devices of a plan that was made for a mesh, of which the file holds the axes and sizes; a plan without one may get one.

    Returns:
      The :class:`Plan`, for ``sparse=`` of a function with the same shapes and dtypes.

    Raises:
      ValueError: the file holds no plan, or one of a later version; the plan is for a mesh, and none or another one is given.

    >>> import tempfile, jax.numpy as jnp, dualrev as dr
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     dr.sparse.plan(lambda x: x ** 2, jnp.ones(3)).save(file.name)
    ...     dr.sparse.load(file.name)
    <plan for the jacobian of <lambda>, 3 x 3: 1 forward and 0 reverse colours for 3 entries>
    """
    with np.load(path, allow_pickle=False) as found:
        if "head" not in found:
            raise ValueError(f"load: {os.fspath(path)} holds no plan; it has {', '.join(found)}")
        head = json.loads(found["head"].tobytes())
        if head["version"] != FILE_VERSION:
            raise ValueError(f"load: {os.fspath(path)} has version {head['version']} of plans; this release reads {FILE_VERSION}")
        m, n = head["shape"]
        positions = Positions((m, n), found["indptr"], found["columns"])
        levels: list[Level] = []
        if head["levels"]:
            parts = [np.split(found[f"level_{part}"], found[f"level_{part}_ends"][:-1]) for part in ("source", "known", "owner")]
            levels = [Level(*each) for each in zip(*parts, strict=True)]
        colouring = Colouring(positions, found["column_colours"], found["row_colours"], found["source"], head["is_symmetric"],
                              tuple(levels))
    costs = head["costs"]
    if head.get("mesh") is not None:
        meshes.check_same(f"load: {os.fspath(path)}", dict(head["mesh"]), mesh)
    if mesh is not None:
        meshes.check("load", mesh)
    return Plan(head["kind"], head["name"], colouring, _types(head["out_types"]), _types(head["in_types"]), (costs[0], costs[1]),
                head["seconds"], mesh)


def _types(given: list[Any]) -> tuple[Type, ...]:
    return tuple((tuple(shape), dtype) for shape, dtype in given)
