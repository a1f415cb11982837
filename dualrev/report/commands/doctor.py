"""``python -m dualrev doctor``: versions, devices, the flags that matter to derivatives, and a self test of a few seconds."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves

import dualrev
from dualrev import oracle, testing
from dualrev._jax.trees import PyTree
from dualrev.report import tables
from dualrev.report.commands.arguments import Parser
from dualrev.time_model import machine

LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "rich")
#: Releases of jax on which the whole suite runs, and the oldest that works.
TESTED = ((0, 10), (0, 12))
OLDEST = (0, 10)
#: Settings of jax that change derivatives, their precision or their speed.
FLAGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_disable_jit", "jax_debug_nans",
         "jax_debug_infs", "jax_cpu_enable_async_dispatch", "jax_compilation_cache_dir")
ENVIRONMENT = ("JAX_PLATFORMS", "XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Test:
    """One part of the self test: what it found, in words, where it failed."""

    name: str
    seconds: float
    fault: str = ""


def _agree(ours: PyTree, expected: PyTree) -> None:
    for x, y in zip(tree_leaves(ours), tree_leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=2e-4, atol=1e-5)


def _program(x: jax.Array) -> jax.Array:
    """A loop, a product of matrices and a branch."""
    matrix = jnp.cos(jnp.arange(9.0, dtype=x.dtype)).reshape(3, 3)

    def step(c: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.tanh(matrix @ c), None

    y: jax.Array = jax.lax.scan(step, x, None, length=5)[0]
    branch: jax.Array = jax.lax.cond(y[0] > 0, jnp.sin, jnp.cos, y)
    return jnp.sum(branch * x)


def _point() -> jax.Array:
    return jnp.array([0.5, -1.0, 2.0])


def _both_modes() -> None:
    x, v = _point(), jnp.ones(3)
    _agree(dualrev.jvp(_program, (x,), (v,))[1], oracle.push(_program, (v,))(x))
    _agree(jax.jit(dualrev.grad(_program))(x), oracle.pull(_program, jnp.ones((), x.dtype))(x)[0])


def _differences() -> None:
    testing.check_grads(_program, (_point(),), order=1)


def _hessians() -> None:
    x = np.arange(1.0, 9.0, dtype="float32")
    found = dualrev.hessian(lambda x: jnp.sum(x[1:] * x[:-1] ** 2), sparse=True, format="dense")(jnp.asarray(x))
    _agree(found, np.diag(2 * np.append(x[1:], 0)) + np.diag(2 * x[:-1], 1) + np.diag(2 * x[:-1], -1))


def _laplacian() -> None:
    x = _point()
    _agree(dualrev.laplacian(lambda x: jnp.sum(jnp.sin(x)))(x)[1], -np.sin(np.asarray(x)).sum())


def _loop_of_unknown_length() -> None:
    def f(x: jax.Array) -> jax.Array:
        found: jax.Array = jax.lax.while_loop(lambda s: s < 10.0, lambda s: s * s, x)
        return found

    _agree(jax.jit(dualrev.grad(f))(jnp.asarray(2.0)), 4 * 2.0**3)  # two steps: the fourth power


TESTS: dict[str, Callable[[], None]] = {
    "a push and a compiled gradient equal jax's": _both_modes, "gradients agree with finite differences": _differences,
    "a sparse Hessian": _hessians,
    "a Laplacian": _laplacian, "the gradient of a loop of unknown length": _loop_of_unknown_length}


def tested() -> Iterator[Test]:
    for name, test in TESTS.items():
        start = time.perf_counter()
        try:
            test()
            fault = ""
        except Exception as error:  # a part that fails is told of, and the others run
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        yield Test(name, time.perf_counter() - start, fault)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    return {"dualrev": dualrev.__version__, "Python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def _flag(name: str) -> object:
    return getattr(jax.config, name, None)  # attributes that a type checker does not see, some of them not in every release


def flags() -> dict[str, str]:
    """Settings of jax that have a value, and variables of the environment that are set."""
    found = {name: _flag(name) for name in FLAGS}
    return {**{name: str(value) for name, value in found.items() if value is not None},
            **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ}}


def calibration() -> str:
    """Where the constants of the time model come from."""
    try:
        path = machine.cache_file()
    except RuntimeError:
        return "shipped"
    return f"measured here ({path})" if path.exists() else "shipped (python -m dualrev calibrate measures those of this machine)"


def advice() -> list[str]:
    """What a user should know about this environment."""
    said = []
    release = tuple([int(part) for part in jax.__version__.split(".")[:2]])
    if release < OLDEST:
        said.append(f"jax {jax.__version__} is too old: dualrev needs {OLDEST[0]}.{OLDEST[1]} or newer")
    elif release not in TESTED:
        said.append(f"jax {jax.__version__} is not a release that the suite runs on ({', '.join(f'{a}.{b}' for a, b in TESTED)})")
    if _flag("jax_disable_jit"):
        said.append("jax_disable_jit is set: everything runs operation by operation, loops step by step")
    if _flag("jax_debug_nans") or _flag("jax_debug_infs"):
        said.append("jax_debug_nans or jax_debug_infs is set: every result is waited for and looked at; dr.finite() says more")
    if not _flag("jax_enable_x64"):
        said.append("numbers are in single precision; JAX_ENABLE_X64=1 gives double")
    return said


def run(words: Sequence[str]) -> int:
    """The command; 0, or 1 where a part of the self test fails."""
    parser = Parser(prog="python -m dualrev doctor", description="Versions, devices, the flags that matter to derivatives, and a self "
                    "test of about five seconds.", epilog="exit status: 0; 1 if the self test fails; 2 if what was typed does not fit.")
    parser.add_argument("--no-test", action="store_true", help="leave the self test out")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")
    options = parser.parse_args(words)
    devices = [f"{device.platform} {device.id}: {device.device_kind}" for device in jax.devices()]
    tests: list[Test] = []
    console = tables.console()
    if not options.json:
        console.print(", ".join(f"{name} {version}" for name, version in versions().items()), soft_wrap=True)
        console.print(f"{platform.platform()}, {os.cpu_count()} cores; devices: {', '.join(devices)}", soft_wrap=True)
        for name, value in flags().items():
            console.print(f"  {name} = {value}", soft_wrap=True)
        console.print(f"constants of the time model: {calibration()}", soft_wrap=True)
        for line in advice():
            console.print(f"note: {line}", soft_wrap=True)
    if not options.no_test:
        for test in tested():
            tests.append(test)
            if not options.json:
                console.print(f"{'failed' if test.fault else 'ok':6} {test.seconds:5.1f} s  {test.name}"
                              + (f": {test.fault}" if test.fault else ""), soft_wrap=True, markup=False)
    failed = [test.name for test in tests if test.fault]
    if options.json:
        print(json.dumps({"versions": versions(), "devices": devices, "flags": flags(), "time_model": calibration(), "notes": advice(),
                          "tests": [asdict(test) for test in tests], "ok": not failed}))
    elif tests:
        total = sum(test.seconds for test in tests)
        console.print(f"{len(failed)} of {len(tests)} tests failed" if failed else f"all {len(tests)} tests passed in {total:.1f} s")
    return 1 if failed else 0
