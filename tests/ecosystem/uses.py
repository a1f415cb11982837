"""Uses of another library: one function, differentiated in the ways people differentiate it, against jax in float64.

Each file of this folder collects the uses of one library::

    use = Uses()

    @use("grad", "hvp", "vmap")
    def mlp():
        ...
        return function, arguments

The body builds the function and its arguments when the test runs.  The words name what is compared:

- ``grad``, ``vjp``, ``jvp``, ``linearize`` (push and pull of one linearization), ``hvp`` (push of grad), ``hessian``,
  ``jacfwd``, ``jacrev``;
- ``vmap``: ``grad`` mapped over two points;
- ``eager``: ``grad`` once more, outside jit.

All of them but ``eager`` run inside one compiled program.  Derivatives are by the first argument, a pytree of floats.

``@use.program`` collects a whole program that calls the library's own training step or sampler, which calls jax's transforms.  It
runs as it stands, then under ``dualrev.installed()``; the results must agree, and dualrev's engines must have run.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_map, tree_unflatten

import dualrev as dr
from dualrev.engines import forward, reverse

#: Relative to the largest entry of a leaf; a leaf far smaller than the others is told apart from zero to SMALL of the largest, and to
#: SMALL_SINGLE where the library computes in float32.
RTOL, SMALL, SMALL_SINGLE = 1e-10, 1e-13, 1e-7

#: For results in float32, and for the few uses whose library computes in float32 whatever it is given.
SINGLE = 1e-5

#: Libraries that warn, at import or when called: not our warnings to mend.
LIBRARIES = (
    "absl",
    "blackjax",
    "brax",
    "diffrax",
    "distrax",
    "e3nn_jax",
    "equinox",
    "fastprogress",
    "flax",
    "haiku",
    "jax_md",
    "jaxopt",
    "jaxtyping",
    "jraph",
    "lineax",
    "ml_collections",
    "mujoco",
    "numpyro",
    "optax",
    "optimistix",
    "orbax",
    "ott",
    "scipy",
    "tensorflow_probability",
    "tf_keras",
    "tinygp",
)


@contextlib.contextmanager
def as_libraries_expect() -> Iterator[None]:
    """Implicit promotion, which these libraries rely on, and their own warnings left alone."""
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for library in LIBRARIES:
            warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")
        # Libraries write float64 numbers into float32 arrays; jax tells them, in its own name.
        warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)
        yield


def library(name: str, distribution: str | None = None) -> Any:
    """The library, or a skip of the whole file that says how to install it."""
    with as_libraries_expect():
        if distribution is None:
            distribution = name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whatever a library's import warns of
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError as e:
                pytest.skip(f"{distribution} is not installed ({e}): pip install 'dualrev[ecosystem]'", allow_module_level=True)


class Uses:
    """The uses of one library, in the order they are written."""

    def __init__(self) -> None:
        self.derivatives: list[Any] = []
        self.programs: list[Any] = []

    def __call__(self, *checks: str, rtol: float = RTOL) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        unknown = set(checks) - set(DERIVATIVES) - {"eager"}
        if unknown:
            raise ValueError(f"no such check: {sorted(unknown)}")

        def collect(build: Callable[[], Any]) -> Callable[[], Any]:
            self.derivatives.append(pytest.param(build, checks, rtol, id=build.__name__))
            return build

        return collect

    def program(self, build: Callable[[], Any]) -> Callable[[], Any]:
        self.programs.append(pytest.param(build, id=build.__name__))
        return build

    def derivatives_test(self) -> Any:
        @pytest.mark.parametrize(("build", "checks", "rtol"), self.derivatives)
        def test(build: Any, checks: Any, rtol: float) -> None:
            compare(build, checks, rtol)

        return test

    def programs_test(self) -> Any:
        @pytest.mark.parametrize("build", self.programs)
        def test(build: Any, monkeypatch: Any) -> None:
            compare_installed(build, monkeypatch)

        return test


def compare(build: Callable[[], Any], checks: tuple[str, ...], rtol: float = RTOL) -> None:
    """Every derivative that ``checks`` names, by dualrev and by jax."""
    fun, args = build()
    names = [name for name in checks if name != "eager"]
    expected = results(jax, fun, names, args)
    got = results(dr, fun, names, args)
    for name in names:
        assert_agree(got[name], expected[name], name, rtol)
    if "eager" in checks:
        assert_agree(
            dr.value_and_grad(fun)(*args), expected["grad"] if "grad" in names else jax.value_and_grad(fun)(*args), "eager", rtol
        )


def results(ad: Any, fun: Callable[..., Any], names: list[str], args: tuple[Any, ...]) -> dict[str, Any]:
    return jax.jit(lambda *args: {name: DERIVATIVES[name](ad, fun, args) for name in names})(*args)


def first(fun: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[Any], Any]:
    return lambda x: fun(x, *args[1:])


def vjp(ad: Any, fun: Any, args: Any) -> Any:
    out, pull = ad.vjp(first(fun, args), args[0])
    return out, pull(direction(out, 1))


def linearize(ad: Any, fun: Any, args: Any) -> Any:
    out, push = ad.linearize(first(fun, args), args[0])
    return out, push(direction(args[0], 2)), push(direction(args[0], 3))


def hvp(ad: Any, fun: Any, args: Any) -> Any:
    return ad.jvp(ad.grad(first(fun, args)), (args[0],), (direction(args[0], 4),))


def mapped(ad: Any, fun: Any, args: Any) -> Any:
    pair = tree_map(lambda x, t: jnp.stack([x, x + 0.01 * t]), args[0], direction(args[0], 5))
    return jax.vmap(ad.grad(first(fun, args)))(pair)


DERIVATIVES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "grad": lambda ad, fun, args: ad.value_and_grad(fun)(*args),
    "vjp": vjp,
    "jvp": lambda ad, fun, args: ad.jvp(first(fun, args), (args[0],), (direction(args[0], 0),)),
    "linearize": linearize,
    "hvp": hvp,
    "hessian": lambda ad, fun, args: ad.hessian(fun)(*args),
    "jacfwd": lambda ad, fun, args: ad.jacfwd(fun)(*args),
    "jacrev": lambda ad, fun, args: ad.jacrev(fun)(*args),
    "vmap": mapped,
}


def direction(tree: Any, seed: int) -> Any:
    """Random numbers in the shapes of a tree."""
    random = np.random.RandomState(seed)
    leaves, structure = tree_flatten(tree)
    return tree_unflatten(structure, [jnp.asarray(random.randn(*jnp.shape(x)), jnp.result_type(x)) for x in leaves])


def compare_installed(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole program as it stands, then with dualrev's transforms in place of jax's."""
    expected = build()()
    jax.clear_caches()  # what jax compiled must not answer for dualrev
    runs: list[str] = []
    for module, name in ((forward, "push_through"), (reverse, "linearize")):
        monkeypatch.setattr(module, name, counted(getattr(module, name), runs))
    with dr.installed():
        got = build()()
    assert runs, "no engine of dualrev ran"
    before = len(runs)
    assert_agree(got, expected, "installed")
    jax.clear_caches()
    assert float(jax.grad(jnp.sin)(0.0)) == 1.0
    assert len(runs) == before, "jax's transforms were not put back"


def counted(function: Callable[..., Any], runs: list[str]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        runs.append(function.__name__)
        return function(*args, **kwargs)

    return run


def assert_agree(got: Any, expected: Any, what: str, rtol: float = RTOL) -> None:
    """Equal structures, shapes and dtypes; equal values to rounding; and values that say something: finite, not all zero."""
    got_tree: Any
    tree: Any
    got_leaves, got_tree = tree_flatten(got)
    paths, tree = tree_flatten_with_path(expected)
    assert got_tree == tree, f"{what}: expected the structure {tree}, got {got_tree}"
    largest = 0.0
    for path, y in paths:
        if is_number(y):
            assert np.all(np.isfinite(y)), f"{what}{keystr(path)}: jax's result is not finite"
            largest = max(largest, float(np.max(np.abs(y), initial=0.0)))
    assert largest > 0, f"{what}: jax's result is zero everywhere"
    for (path, y), x in zip(paths, got_leaves, strict=True):
        where = what + keystr(path)
        assert jnp.shape(x) == jnp.shape(y), f"{where}: expected the shape {jnp.shape(y)}, got {jnp.shape(x)}"
        if not hasattr(y, "dtype"):
            assert x == y or is_number(y), f"{where}: expected {y}, got {x}"
        if jnp.asarray(y).dtype == jax.dtypes.float0 or jnp.issubdtype(jnp.asarray(y).dtype, jax.dtypes.extended):
            continue
        assert jnp.result_type(x) == jnp.result_type(y), f"{where}: expected {jnp.result_type(y)}, got {jnp.result_type(x)}"
        scale = float(np.max(np.abs(y), initial=0.0))
        relative = max(rtol, SINGLE) if jnp.result_type(y).itemsize <= 4 else rtol
        small = SMALL_SINGLE if rtol >= SINGLE else SMALL
        np.testing.assert_allclose(x, y, rtol=0, atol=relative * scale + small * largest, err_msg=where)


def is_number(y: Any) -> bool:
    dtype = jnp.result_type(y)
    return bool(jnp.issubdtype(dtype, jnp.inexact))
