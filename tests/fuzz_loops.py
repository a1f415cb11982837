"""``python -m tests.fuzz_loops``: small loops at random, each as one kernel and as the compiler makes it.

XLA ends the process where it can't make one kernel of a loop that it was told to, so every chunk of loops runs in a process of its own;
a chunk that ends goes on behind the loop that ended it, and that loop's seed is printed.  ``--seed N --count 1`` draws one loop again.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import conftest  # noqa: F401  (the settings of the suite)
import jax
import jax.numpy as jnp
import numpy as np
from agreement import promoting
from jax import lax
from random_loops import Loop, is_inexact, is_real

import dualrev as dr
from dualrev.calls.loops.one_kernel import as_one_kernel

#: Of programs in double precision, and of those that hold a value in single precision.
DOUBLE, SINGLE = 1e-7, 2e-3
#: The loops of a process.
CHUNK = 200


def cost(outs: Any) -> Any:
    return sum([jnp.sum(jnp.cos(x.astype("float64")) * jnp.arange(1.0, x.size + 1).reshape(x.shape)) for x in jax.tree.leaves(outs)
                if is_real(x)], jnp.zeros(()))


#: How a loop is used; the first five without a derivative, as :func:`~dualrev.calls.loops.one_kernel.as_one_kernel` makes it a kernel.
PLAIN = ("itself", "batch", "donated", "twice", "within a loop")
WAYS = (*PLAIN, "grad", "grad", "grad", "push", "grad of a batch", "batch of grad", "second", "linearize")


def program(loop: Loop, way: str, fuse: Any) -> tuple[Callable[..., Any], Any]:
    """A function of the loop's arrays, and how to call it; ``fuse`` is the option."""
    def around(run: Callable[..., Any], init: Any, xs: Any) -> Any:
        return as_one_kernel(run, init, xs) if fuse and way in PLAIN else run(init, xs)

    arguments = [loop.init, loop.xs, loop.consts]
    leaves, tree = jax.tree.flatten(arguments)

    def value(*args: Any) -> Any:
        """The loop, of some arrays that XLA knows; another loop, that is no kernel, begins with the same."""
        given = zip(jax.tree.leaves(list(args)), loop.known, strict=True)
        init, xs, consts = jax.tree.unflatten(tree, [x if n is None else jnp.full(x.shape, n, x.dtype) for x, n in given])
        outs = loop(around, init, xs, consts)
        starts = [jnp.zeros((), "int64"), jnp.ones((), bool), *init]
        return outs, lax.scan(lambda c, _: ([jnp.sort(x.ravel())[::-1].reshape(x.shape) for x in c], None), starts, None, length=2)[0]

    real = [i for i, x in enumerate(leaves) if is_real(x)]

    def of_real(f: Callable[..., Any]) -> Callable[..., Any]:
        """``f(function of the real arrays, these)``"""
        def run(*args: Any) -> Any:
            given = jax.tree.leaves(list(args))

            def g(chosen: list[Any]) -> Any:
                full = list(given)
                for i, x in zip(real, chosen, strict=True):
                    full[i] = x
                return cost(value(*jax.tree.unflatten(tree, full)))

            return f(g, [given[i] for i in real])

        return run

    def grad(g: Any) -> Any:
        return dr.grad(g, fuse_loops=fuse)

    def many(f: Any) -> Any:
        return lambda *args: jax.vmap(f)(*jax.tree.map(lambda x: jnp.stack([x, x]), list(args)))

    def second(g: Any, x: list[Any]) -> Any:
        return grad(lambda x: sum([jnp.sum(jnp.sin(y).astype("float64")) for y in grad(g)(x)], jnp.zeros(())))(x)

    ways: dict[str, Callable[..., Any]] = {
        "itself": value, "donated": value, "batch": many(value), "twice": lambda *args: (value(*args), value(*args)),
        "within a loop": lambda *args: lax.scan(lambda c, _: (value(c, *args[1:])[0][0], None), args[0], None, length=2),
        "grad": of_real(lambda g, x: dr.value_and_grad(g, fuse_loops=fuse)(x)),
        "push": of_real(lambda g, x: dr.jvp(g, (x,), (x,), fuse_loops=fuse)),
        "grad of a batch": of_real(lambda g, x: grad(lambda x: jnp.sum(jax.vmap(g)([jnp.stack([y, 2 * y]) for y in x])))(x)),
        "batch of grad": many(of_real(lambda g, x: grad(g)(x))),
        "second": of_real(second),
        "linearize": of_real(lambda g, x: dr.linearize(g, x, fuse_loops=fuse)[1](x)),
    }
    return ways[way], arguments


def agree(got: Any, expected: Any, tolerance: float) -> str | None:
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if x.dtype != y.dtype or x.shape != y.shape:
            return f"{y.dtype}{y.shape} expected, got {x.dtype}{x.shape}"
        a, b = np.asarray(x), np.asarray(y)
        finite = np.abs(b[np.isfinite(b)])
        scale = float(finite.max()) if finite.size else 0.0
        rtol = tolerance if is_inexact(y) else 0.0
        if not np.allclose(a, b, rtol=rtol, atol=rtol * max(1.0, scale), equal_nan=True):
            return f"{y.dtype}{y.shape}: {b.ravel()[:4]} expected, got {a.ravel()[:4]}"
    return None


def tried(seed: int) -> tuple[str, str | None, bool]:
    """How the loop of ``seed`` was used, what went wrong, and whether it became a kernel."""
    loop = Loop(seed)
    way = loop.draw.one(WAYS)
    with promoting():
        run, arguments = program(loop, way, "auto")
        try:
            lowered = jax.jit(run, donate_argnums=(0,) if way == "donated" else ()).lower(*arguments)
        except Exception:
            plain, _ = program(loop, way, False)
            try:
                jax.jit(plain).lower(*arguments)
            except (TypeError, ValueError, NotImplementedError) as error:
                return way, f"not a loop: {error}", False
            raise
        text = lowered.as_text()
        if "xla_cpu_small_call" not in text:
            return way, None, False
        plain, _ = program(loop, way, False)
        expected = jax.jit(plain)(*arguments)
        return way, agree(lowered.compile()(*arguments), expected, SINGLE if "f32" in text else DOUBLE), True


def chunk(seeds: range) -> int:
    for seed in seeds:
        print("try", seed, flush=True)
        try:
            way, wrong, marked = tried(seed)
        except Exception as error:  # whatever goes wrong with one loop is reported, and the others still run
            way, wrong, marked = "", f"{type(error).__name__}: {error}", True
        print("done", seed, int(marked), way.replace(" ", "-"), (wrong or "").replace("\n", " ")[:400], flush=True)
        if seed % 20 == 19:
            jax.clear_caches()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_loops", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="how many loops (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="where to begin (default: 0)")
    parser.add_argument("--chunk", action="store_true", help="in this process")
    given = parser.parse_args()
    if given.chunk:
        return chunk(range(given.seed, given.seed + given.count))
    marked = failures = refused = 0
    next_seed, end = given.seed, given.seed + given.count
    while next_seed < end:
        count = min(end - next_seed, CHUNK)
        ran = subprocess.run([sys.executable, "-m", "tests.fuzz_loops", "--chunk", "--seed", str(next_seed), "--count", str(count)],
                             capture_output=True, text=True, check=False)
        last = next_seed
        for line in ran.stdout.splitlines():
            word, seed, *rest = line.split(" ", 4)
            if word == "try":
                last = int(seed)
            elif word == "done":
                marked += int(rest[0])
                wrong = rest[2] if len(rest) > 2 else ""
                refused += "not a loop" in wrong
                if wrong and "not a loop" not in wrong:
                    failures += 1
                    print(line, flush=True)
        if ran.returncode:
            failures += 1
            said = [line for line in ran.stderr.splitlines() if not line.startswith("    @")]
            print(f"seed {last} ended the process: {' '.join(said)[-600:]}", flush=True)
        next_seed = last + 1
    print(f"{given.count} loops, {marked} as kernels, {refused} not loops, {failures} failures", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
