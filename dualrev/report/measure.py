"""Differentiating one function with every engine: counts, times, and the differences between the answers."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

import dualrev
from dualrev import oracle
from dualrev._jax.trees import PyTree
from dualrev.linear.residuals import Residuals

#: A Jacobian of more passes or entries is not computed in full: one pass in a random direction is taken instead.
MOST_PASSES, MOST_ENTRIES = 5_000, 2**24
#: Passes run together as long as their tangents take about this many bytes.
BYTES_AT_ONCE = 2**28
#: Runs that a time is the median of, and the seconds after which no further run starts.
RUNS, ENOUGH_SECONDS = 9, 1.0

Mode: TypeAlias = Literal["forward", "reverse"]

#: What is known of a Jacobian: all of it ("J"), or its product with a tangent ("Jt") or a cotangent ("uJ").
Answer: TypeAlias = dict[str, np.ndarray]

_NEEDS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
                 jax.errors.TracerIntegerConversionError)


class UnfitFunctionError(ValueError):
    """A function that has no Jacobian to compare: the message says what it should take or return."""


@dataclass(frozen=True)
class Sweep:
    """One engine's passes over the basis of the inputs (pushes) or of the outputs (pulls)."""

    passes: int
    passes_for_jacobian: int
    at_once: int
    seconds: float
    compiled: bool


@dataclass(frozen=True)
class Measurement:
    """What there is to say about one function."""

    name: str
    inputs: int
    outputs: int
    tape_ops: int
    tape_bytes: int
    forward: Sweep
    reverse: Sweep
    #: What ``jacobian(engine="auto")`` does with its tape: "push" or "pull".
    auto: str
    difference_engines: float
    difference_jax: float
    tolerance: float
    value: float

    @property
    def agrees(self) -> bool:
        return self.difference_engines <= self.tolerance and self.difference_jax <= self.tolerance


@dataclass(frozen=True)
class Stored:
    """What the reverse engine keeps of one function."""

    name: str
    residuals: Residuals


@dataclass(frozen=True)
class Flat:
    """A function of float arrays that returns a tuple of float arrays; everything else is held fixed or left out."""

    function: Callable[..., tuple[jax.Array, ...]]
    primals: tuple[jax.Array, ...]
    outs: tuple[jax.Array, ...]

    @property
    def inputs(self) -> int:
        return sum(x.size for x in self.primals)

    @property
    def outputs(self) -> int:
        return sum(out.size for out in self.outs)


def flatten(function: Callable[..., PyTree], args: Sequence[PyTree], kwargs: dict[str, PyTree]) -> Flat:
    """``function`` by those leaves of its arguments that are floats; it is run once, on the values given."""
    leaves, treedef = jax.tree.flatten((tuple(args), kwargs))
    moving = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    if not moving:
        raise UnfitFunctionError("none of its arguments holds floats, so there is nothing to differentiate by; "
                            "write 2.0 for 2, jnp.arange(3.0) for jnp.arange(3)")
    if any(isinstance(leaves[i], (complex, np.ndarray, np.generic, jax.Array)) and jnp.iscomplexobj(leaves[i]) for i in moving):
        raise UnfitFunctionError("an argument is complex, and a table of real Jacobians has no place for it; "
                            "pass the real and imaginary parts as two float arguments")
    if not any(jnp.size(leaves[i]) for i in moving):
        raise UnfitFunctionError("its arguments hold no numbers, only empty arrays; give it at least one")
    out = function(*args, **kwargs)
    out_leaves = jax.tree.leaves(out)
    for leaf in out_leaves or [out]:
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
            raise UnfitFunctionError(f"it returns {_described(out, leaf)}; return an array, a float or a pytree of them")
    chosen = [i for i, leaf in enumerate(out_leaves) if _is_float(leaf)]
    if not chosen:
        raise UnfitFunctionError("none of its outputs holds floats, so every derivative is zero; return a float array")
    if not any(jnp.size(out_leaves[i]) for i in chosen):
        raise UnfitFunctionError("it returns only empty arrays, which have no derivative; return at least one number")
    if any(jnp.iscomplexobj(out_leaves[i]) for i in chosen):
        raise UnfitFunctionError("it returns complex values, and a table of real Jacobians has no place for them; "
                            "return the real and imaginary parts as two float arrays")

    def flat(*floats: jax.Array) -> tuple[jax.Array, ...]:
        filled = list(leaves)
        for i, x in zip(moving, floats, strict=True):
            filled[i] = x
        flat_args, flat_kwargs = jax.tree.unflatten(treedef, filled)
        results = jax.tree.leaves(function(*flat_args, **flat_kwargs))
        return tuple([results[i] for i in chosen])

    return Flat(flat, tuple([jnp.asarray(leaves[i]) for i in moving]), tuple([jnp.asarray(out_leaves[i]) for i in chosen]))


def _is_float(leaf: object) -> bool:
    if isinstance(leaf, (bool, int)):
        return False
    if isinstance(leaf, (float, complex)):
        return True
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _described(out: PyTree, leaf: object) -> str:
    if out is None:
        return "None"
    kind = type(leaf).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    return f"{article} {kind}" if out is leaf else f"a {type(out).__name__} with {article} {kind} in it"


# ------------------------------------------------------------------------------------------------------------ measuring


def measure(name: str, flat: Flat) -> Measurement:
    """Differentiate with each engine in full where that is affordable, else along one random direction."""
    n, m = flat.inputs, flat.outputs
    _, linear_map = dualrev.linearize(flat.function, *flat.primals)
    every = tuple(range(len(flat.primals)))
    draw = np.random.default_rng(0)
    tangents = _directions(draw, flat.primals)
    cotangents = _directions(draw, flat.outs)
    answers: dict[str, Answer] = {}
    expected: dict[str, Answer] = {}
    sweeps: dict[str, Sweep] = {}
    modes: tuple[tuple[Mode, int], ...] = (("forward", n), ("reverse", m))
    for engine, needed in modes:
        if needed <= MOST_PASSES and n * m <= MOST_ENTRIES:
            passes = needed
            at_once = max(1, min(needed, BYTES_AT_ONCE // (8 * (n + m) + linear_map.residual_bytes)))
            transform = dualrev.jacfwd if engine == "forward" else dualrev.jacrev
            run = transform(flat.function, argnums=every, chunk_size=at_once)
        else:
            passes = at_once = 1
            run = _one_push(flat, tangents) if engine == "forward" else _one_pull(flat, cotangents)
        answer, seconds, is_compiled = timed(run, flat.primals)
        sweeps[engine] = Sweep(passes, needed, at_once, seconds, is_compiled)
        if passes == needed:
            answers[engine] = {"J": _matrix(answer, flat)}
            expected[engine] = {"J": _expected_matrix(flat, engine, needed, at_once)}
        else:
            kind = "Jt" if engine == "forward" else "uJ"
            answers[engine] = {kind: _vector(answer)}
            run = oracle.push(flat.function, tangents) if engine == "forward" else oracle.pull(flat.function, cotangents)
            expected[engine] = {kind: _vector(compiled(run, flat.primals)[0])}
    projections = (_vector(tangents), _vector(cotangents))
    return Measurement(
        name=name,
        inputs=n,
        outputs=m,
        tape_ops=linear_map.n_ops,
        tape_bytes=linear_map.residual_bytes,
        forward=sweeps["forward"],
        reverse=sweeps["reverse"],
        auto="push" if n <= m else "pull",
        difference_engines=difference(answers["forward"], answers["reverse"], *projections),
        difference_jax=max(difference(answers[mode], expected[mode], *projections) for mode in answers),
        tolerance=_tolerance(flat),
        value=float(flat.outs[0].reshape(())) if m == 1 else float(np.linalg.norm(_vector(flat.outs))),
    )


def stored(name: str, flat: Flat) -> Stored:
    """What the tape of a function keeps."""
    return Stored(name, dualrev.linearize(flat.function, *flat.primals)[1].residuals())


def compiled(run: Callable[..., PyTree], primals: Sequence[jax.Array]) -> tuple[PyTree, Callable[..., PyTree]]:
    """The answer, and ``run`` compiled; as it is, where Python control flow reads the values of the inputs."""
    quick = jax.jit(run)
    try:
        return jax.block_until_ready(quick(*primals)), quick
    except _NEEDS_VALUES:
        return jax.block_until_ready(run(*primals)), run


def timed(run: Callable[..., PyTree], primals: Sequence[jax.Array]) -> tuple[PyTree, float, bool]:
    """``(answer, median seconds, whether it is compiled)``: warm, and until every array is ready."""
    answer, quick = compiled(run, primals)
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(quick(*primals))
        seconds.append(time.perf_counter() - start)
    return answer, statistics.median(seconds), quick is not run


def _one_push(flat: Flat, tangents: tuple[jax.Array, ...]) -> Callable[..., PyTree]:
    return lambda *primals: dualrev.jvp(flat.function, primals, tangents, engine="forward")[1]


def _one_pull(flat: Flat, cotangents: tuple[jax.Array, ...]) -> Callable[..., PyTree]:
    return lambda *primals: dualrev.vjp(flat.function, *primals, engine="reverse")[1](cotangents)


def _directions(draw: np.random.Generator, arrays: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple([jnp.asarray(draw.normal(size=x.shape), x.dtype) for x in arrays])


def _vector(arrays: Sequence[jax.Array]) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in arrays])


def _matrix(jacobian: Sequence[Sequence[jax.Array]], flat: Flat) -> np.ndarray:
    """(outputs, inputs) from a Jacobian's blocks, one tuple of inputs for each output."""
    blocks = [
        [np.asarray(block, np.float64).reshape(out.size, x.size) for block, x in zip(row, flat.primals, strict=True)]
        for row, out in zip(jacobian, flat.outs, strict=True)
    ]
    return np.block(blocks)


# ------------------------------------------------------------------------------------------------------------ comparing


def _expected_matrix(flat: Flat, mode: Mode, needed: int, at_once: int) -> np.ndarray:
    """(outputs, inputs) by jax in the same mode, with as many passes at once."""
    first, run = compiled(oracle.lines(flat.function, mode), (jnp.arange(at_once), *flat.primals))
    rest = [run(jnp.arange(start, start + at_once), *flat.primals) for start in range(at_once, needed, at_once)]
    matrix = np.concatenate([np.asarray(lines, np.float64) for lines in (first, *rest)])[:needed]
    return matrix.T if mode == "forward" else matrix


def difference(ours: Answer, theirs: Answer, t: np.ndarray, u: np.ndarray) -> float:
    """The largest relative difference on the most detailed thing that both answers determine: J, J·t, uᵀJ or uᵀJ·t."""
    for kind in ("J", "Jt", "uJ", "uJt"):
        one, other = _determined(ours, kind, t, u), _determined(theirs, kind, t, u)
        if one is not None and other is not None:
            return relative_difference(one, other)
    raise AssertionError("every answer determines uᵀJ·t")


def _determined(answer: Answer, kind: str, t: np.ndarray, u: np.ndarray) -> np.ndarray | None:
    if kind in answer:
        return answer[kind]
    if "J" in answer:
        return {"Jt": answer["J"] @ t, "uJ": u @ answer["J"], "uJt": u @ answer["J"] @ t}.get(kind)
    if kind == "uJt":
        return u @ answer["Jt"] if "Jt" in answer else answer["uJ"] @ t
    return None


def relative_difference(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The largest entry of x - y over the largest entry of either; equal infinities and two NaNs differ by nothing."""
    x, y = np.asarray(x), np.asarray(y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if same.all():
        return 0.0
    if not (np.isfinite(x) & np.isfinite(y))[~same].all():
        return math.inf
    finite = np.abs(np.concatenate([x[np.isfinite(x)], y[np.isfinite(y)]]))
    return float(np.abs(x - y)[~same].max() / finite.max())


def _tolerance(flat: Flat) -> float:
    """Half of the digits of the least precise array."""
    return math.sqrt(max(float(jnp.finfo(x.dtype).eps) for x in (*flat.primals, *flat.outs)))
