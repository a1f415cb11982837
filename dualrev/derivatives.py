"""What ``vjp`` and ``linearize`` return: linear maps between pytrees.

Both hold a flat :class:`~dualrev.linear_maps.LinearMap` and the structures around it, are pytrees whose leaves are residuals, and
so may leave ``jit``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev import checks, errors, zeros
from dualrev._jax import convert_to, is_differentiable, typeof, vary_as
from dualrev.linear_maps import LinearMap, Tape
from dualrev.products import contraction
from dualrev.residuals import Origins, Residuals, nbytes_of, residuals_of
from dualrev.settings import current, using, widened


class Structure:
    """Pytree structures and abstract values of a function's inputs and outputs, and which inputs move."""

    __slots__ = ("active", "ct_avals", "in_avals", "in_tree", "name", "out_avals", "out_tree", "settings")

    def __init__(self, name: str, in_tree: Any, in_avals: Sequence[Any], active: Sequence[Any], out_tree: Any,
                 out_avals: Sequence[Any]):
        self.name = name
        self.in_tree = in_tree
        self.in_avals = tuple(in_avals)
        self.active = tuple(active)
        self.out_tree = out_tree
        self.out_avals = tuple(out_avals)
        #: The inputs in the dtypes of their cotangents.
        self.ct_avals = tuple([widened(a, flag) for a, flag in zip(in_avals, active, strict=True)])
        self.settings = current.get()

    def _key(self) -> Any:
        return (self.name, self.in_tree, self.in_avals, self.active, self.out_tree, self.out_avals, self.settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def shape(self) -> tuple[int, int]:
        return (sum(_size(a) for a in self.out_avals), sum(_size(a) for a in self.in_avals))


def _size(aval: Any) -> int:
    return int(aval.size) if is_differentiable(aval) else 0


def push_flat(linear_map: LinearMap, s: Structure, tangents: Sequence[Any]) -> list[Any]:
    """Flat tangents of all inputs to flat tangents of all outputs, with arrays for zeros."""
    moving = [zeros.drop_float0(vary_as(t, a)) for t, a, moves in zip(tangents, s.in_avals, s.active, strict=True) if moves]
    results = linear_map.push(*moving)
    return [zeros.fit(t, aval) for t, aval in zip(results, s.out_avals, strict=True)]


def pull_flat(linear_map: LinearMap, s: Structure, cotangents: Sequence[Any]) -> list[Any]:
    """Flat cotangents of all outputs to flat cotangents of all inputs, with arrays for zeros."""
    given = [vary_as(ct, aval) if is_differentiable(aval) else None for ct, aval in zip(cotangents, s.out_avals, strict=True)]
    results = iter(linear_map.pull(*given))
    cts = [next(results) if moves else None for moves in s.active]
    return [zeros.fit(ct, aval) for ct, aval in zip(cts, s.ct_avals, strict=True)]


class Pullback:
    """The function that ``vjp`` returns: cotangents of the outputs to a tuple of cotangents of the primals."""

    __slots__ = ("__weakref__", "linear_map", "origins", "structure")

    def __init__(self, linear_map: LinearMap, structure: Structure, origins: Origins | None = None):
        self.linear_map = linear_map
        self.structure = structure
        self.origins = origins

    def residuals(self) -> Residuals:
        """What is stored, array by array (see :meth:`Linearized.residuals`)."""
        return residuals_of(self.linear_map, self.origins)

    def __call__(self, *args: Any) -> Any:
        s = self.structure
        with errors.calling("vjp"), using(s.settings):
            if len(args) != 1:
                raise TypeError(
                    f"The function returned by `vjp` applied to {s.name} was called with {len(args)} arguments, but functions "
                    "returned by `vjp` must be called with a single argument corresponding to the single value returned by "
                    "the function being differentiated (even if that returned value is a tuple or other container)."
                )
            cts = checks.check_moving(args[0], s.out_tree, s.out_avals, "cotangent", "output")
            return tree_unflatten(s.in_tree, pull_flat(self.linear_map, s, cts))

    def __repr__(self) -> str:
        m, n = self.structure.shape
        return f"<vjp of {self.structure.name}: {m} output(s) to {n} input(s)>"


class LinearTranspose:
    """The function that ``linear_transpose`` returns: a cotangent of the output to a tuple with one for each input."""

    __slots__ = ("__weakref__", "linear_map", "structure")

    def __init__(self, linear_map: LinearMap, structure: Structure):
        self.linear_map = linear_map
        self.structure = structure

    def __call__(self, cotangent: Any) -> Any:
        s = self.structure
        with errors.calling("linear_transpose"), using(s.settings):
            given, tree = tree_flatten(cotangent)
            if tree != s.out_tree:
                raise TypeError(f"cotangent tree does not match function output, expected {s.out_tree} but got {tree}")
            if any(typeof(ct).shape != a.shape or typeof(ct).dtype != a.dtype for ct, a in zip(given, s.out_avals, strict=True)):
                raise TypeError(f"cotangent type does not match function output, expected {s.out_avals} but got {given}")
            cts = self.linear_map.pull(*checks.as_arrays(given))
            return tree_unflatten(s.in_tree, [convert_to(lax.full(a.shape, 0, a.dtype) if ct is None else ct, a)
                                              for ct, a in zip(cts, s.in_avals, strict=True)])


class Linearized:
    """The derivative of a function at a point, as a linear map.

    ``J(*tangents)`` as in jax; ``J @ v`` and ``J.T @ u`` for one tangent (cotangent) with the structure of the inputs (outputs);
    ``J.shape`` is ``(number of outputs, number of inputs)`` in elements.
    """

    __slots__ = ("__weakref__", "origins", "structure", "tape")

    def __init__(self, tape: LinearMap, structure: Structure, origins: Origins | None = None):
        self.tape = tape
        self.structure = structure
        self.origins = origins

    def __call__(self, *tangents: Any) -> Any:
        s = self.structure
        with errors.calling("linearize"), using(s.settings):
            flat = checks.check_moving(tangents, s.in_tree, s.in_avals, "tangent", "input")
            return tree_unflatten(s.out_tree, push_flat(self.tape, s, flat))

    def __matmul__(self, tangent: Any) -> Any:
        return self(tangent) if _is_single(self.structure) else self(*tangent)

    @property
    def T(self) -> Transposed:
        """The transpose, from cotangents of the outputs to cotangents of the inputs."""
        return Transposed(self)

    @property
    def shape(self) -> tuple[int, int]:
        return self.structure.shape

    @property
    def n_ops(self) -> int:
        """The number of operations on the tape, those inside compiled functions and loop bodies counted once each."""
        return sum(count_ops(self.tape).values())

    @property
    def residual_bytes(self) -> int:
        """The bytes that the map keeps alive: each array once, scalars of the program not counted."""
        return sum(nbytes_of(x) for x in {id(x): x for x in tree_leaves(self.tape)}.values())

    def residuals(self) -> Residuals:
        """The arrays that the map keeps alive, each once: bytes, the operation that keeps it, the user's line.

        A list that prints as a table; its bytes sum to ``residual_bytes``.  Which arrays are inputs or outputs, and lines outside
        compiled functions, are not known of a map that has left ``jit``.
        """
        return residuals_of(self.tape, self.origins)

    def __repr__(self) -> str:
        m, n = self.shape
        lines = [f"Linear map of {self.structure.name}: {m} x {n}, {self.n_ops} ops, {self.residual_bytes:,} residual bytes"]
        counts = count_ops(self.tape)
        width = max((len(name) for name in counts), default=0)
        lines += [f"  {name:<{width}}  {count:>6}" for name, count in counts.most_common()]
        return "\n".join(lines)


class Transposed:
    """The transpose of a :class:`Linearized` map: ``J.T @ u`` pulls a cotangent back."""

    __slots__ = ("T", "__weakref__")

    def __init__(self, linearized: Linearized):
        self.T = linearized

    def __call__(self, cotangent: Any) -> Any:
        """A tuple with a cotangent for each primal, as the function that ``vjp`` returns."""
        return Pullback(self.T.tape, self.T.structure)(cotangent)

    def __matmul__(self, cotangent: Any) -> Any:
        cts = self(cotangent)
        return cts[0] if _is_single(self.T.structure) else cts

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.T.shape
        return (n, m)

    @property
    def residual_bytes(self) -> int:
        return self.T.residual_bytes

    def residuals(self) -> Residuals:
        """What is stored, array by array (see :meth:`Linearized.residuals`)."""
        return self.T.residuals()

    def __repr__(self) -> str:
        return f"Transpose of: {self.T!r}"


def _is_single(s: Structure) -> bool:
    """Whether the function has one positional argument, so that its tangent need not be wrapped in a tuple."""
    return len(s.in_tree.children()) == 1


def count_ops(linear_map: Any) -> Counter[str]:
    """How often each operation stands on a tape, looking into compiled functions and loop bodies."""
    counts: Counter[str] = Counter()
    waiting = [linear_map]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Tape):
            waiting.extend(entry[0] for entry in current.entries)
        elif (inner := getattr(current, "inner_maps", None)) is not None:
            waiting.extend(inner())
        else:
            counts[current.name] += 1
    return counts


class DenseMap(LinearMap):
    """A linear map held as its matrix in blocks ``[output][active input]``: what sweeps of pushes find.

    A block has the shape of the output followed by that of the input.  ``real`` holds derivatives along the real axis,
    ``imaginary`` those along the imaginary axis of complex inputs (None for real ones): a map between complex numbers need only
    be linear over the reals.
    """

    __slots__ = ("imaginary", "in_avals", "real")

    name = "dense matrix"

    def __init__(self, real: Sequence[Sequence[Any]], imaginary: Sequence[Sequence[Any]], in_avals: tuple[Any, ...]):
        self.real = real
        self.imaginary = imaginary
        self.in_avals = in_avals

    def push(self, *tangents: Any) -> tuple[Any, ...]:
        results = []
        for real, imaginary in zip(self.real, self.imaginary, strict=True):
            total = None
            for a, b, t in zip(real, imaginary, tangents, strict=True):
                if a is None or t is None:
                    continue
                axes = tuple(range(a.ndim - t.ndim, a.ndim))
                if b is None:
                    total = zeros.add(total, _contract(a, t, axes))
                else:
                    total = zeros.add(total, zeros.add(_contract(a, lax.real(t), axes), _contract(b, lax.imag(t), axes)))
            results.append(total)
        return tuple(results)

    def pull(self, *cotangents: Any) -> tuple[Any, ...]:
        totals: list[Any] = [None] * len(self.in_avals)
        for real, imaginary, ct in zip(self.real, self.imaginary, cotangents, strict=True):
            if ct is None:
                continue
            axes = tuple(range(ct.ndim))
            for i, (a, b) in enumerate(zip(real, imaginary, strict=True)):
                if a is None:
                    continue
                term = _real_part(_contract(a, ct, axes))
                if b is not None:  # Re(u·J·t) = Re(ct·t) for t = 1 and for t = i
                    term = lax.complex(term, lax.neg(_real_part(_contract(b, ct, axes))))
                totals[i] = zeros.add(totals[i], term)
        return tuple([t if t is None else convert_to(t, a)
                      for t, a in zip(totals, self.in_avals, strict=True)])


def _real_part(x: Any) -> Any:
    return lax.real(x) if jnp.iscomplexobj(x) else x


def _contract(block: Any, t: Any, axes: tuple[int, ...]) -> Any:
    dtype = zeros.promoted(block.dtype, t.dtype)
    dims = ((axes, tuple(range(t.ndim))), ((), ()))

    def times(t: Any, block: Any) -> Any:
        return lax.dot_general(block, t, dims, precision=lax.Precision.HIGHEST)

    t, block = lax.convert_element_type(t, dtype), lax.convert_element_type(block, dtype)
    return contraction(times, t, block) if current.get().zero_wins else times(t, block)


jax.tree_util.register_pytree_node(
    DenseMap, lambda m: ((m.real, m.imaginary), m.in_avals), lambda avals, blocks: DenseMap(*blocks, avals)
)
jax.tree_util.register_pytree_node(Pullback, lambda p: ((p.linear_map,), p.structure), lambda s, m: Pullback(m[0], s))
jax.tree_util.register_pytree_node(
    LinearTranspose, lambda t: ((t.linear_map,), t.structure), lambda s, m: LinearTranspose(m[0], s)
)
jax.tree_util.register_pytree_node(Linearized, lambda j: ((j.tape,), j.structure), lambda s, m: Linearized(m[0], s))
jax.tree_util.register_pytree_node(Transposed, lambda t: ((t.T,), None), lambda _, j: Transposed(j[0]))

