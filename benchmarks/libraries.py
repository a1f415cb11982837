"""The libraries that are compared, each behind the same few calls.

``LIBRARIES[name].prepare(program, call)`` is a function without arguments that does the call once and waits for its result; the call is
one of ``CALLS``.  What a library cannot do, or one that is not installed, is a ``NotImplementedError`` that says why: asv leaves such a
measurement out.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev
from benchmarks.scenarios.namespaces import JAX, AutogradNamespace, TorchNamespace, on
from dualrev.problems.scenario import Scenario

Run = Callable[[], Any]
CALLS = ("value", "gradient", "jvp", "jacobian", "jacfwd", "hessian", "hvp")
#: Forward mode finds a gradient by one push for each input: no more than so many.
MOST_PUSHES = 512
#: A loop in Python of more steps than this makes one program that takes minutes to compile.
MOST_UNROLLED = 20


def use_double() -> None:
    """Programs say their own precision, which for some is double."""
    jax.config.update("jax_enable_x64", True)


def direction(p: Any) -> Any:
    """The tangent of a push, and the vector of a product with a Hessian."""
    return jax.tree.map(lambda x: np.cos(np.asarray(x)).astype(np.asarray(x).dtype), p)


class Library:
    """A library of arrays, by the name of its module."""

    def __init__(self, name: str, module: str):
        self.name = name
        self.module_name = module

    @functools.cached_property
    def module(self) -> Any:
        try:
            return importlib.import_module(self.module_name)
        except ImportError as missing:
            raise NotImplementedError(f"{self.name}: {missing}") from None

    def arguments(self, program: Scenario) -> Any:
        return jax.tree.map(self.namespace.array, program.draw())

    @property
    def namespace(self) -> Any:
        raise NotImplementedError

    def prepare(self, program: Scenario, call: str) -> Run:
        raise NotImplementedError

    def numbers(self, result: Any) -> list[np.ndarray]:
        """The arrays of a result, as NumPy's."""
        return [np.asarray(x) for x in jax.tree.leaves(result)]


class JaxLike(Library):
    """dualrev, jax: libraries with jax's calls."""

    def __init__(self, name: str, module: str, compiled: bool = True, engine: str | None = None):
        super().__init__(name, module)
        self.compiled = compiled
        self.options = {} if engine is None else {"engine": engine}
        self.engine = engine

    @property
    def namespace(self) -> Any:
        return JAX

    def function(self, program: Scenario, call: str) -> Callable[..., Any]:
        """The call, of the program's arguments; a push and a product take their direction after them."""
        if call == "gradient" and program.derivative is not None:
            if self.engine:
                raise NotImplementedError("the program chooses its modes itself")
            if program.otherwise and self.module is jax:
                raise NotImplementedError("jax has no reverse mode of while loops")
            return program.derivative(self.module)
        f, ad, options = on(JAX, program), self.module, self.options
        if self.engine == "auto" and call != "jacobian":
            raise NotImplementedError("only Jacobians choose between modes so")
        if self.engine == "forward" and call == "gradient":
            size = sum(np.size(x) for x in jax.tree.leaves(program.draw()[0]))
            if size > MOST_PUSHES:
                raise NotImplementedError(f"one push for each input would be more than {MOST_PUSHES}")

        def grad(p: Any, *data: Any) -> Any:
            return ad.grad(f, **options)(p, *data)

        def jvp(p: Any, *rest: Any) -> Any:
            *data, v = rest
            return ad.jvp(lambda p: f(p, *data), (p,), (v,), **options)

        def hvp(p: Any, *rest: Any) -> Any:
            *data, v = rest
            return ad.jvp(lambda p: ad.grad(f)(p, *data), (p,), (v,), **options)[1]

        def jacobian(p: Any, *data: Any) -> Any:
            find = ad.jacobian if ad is dualrev else ad.jacrev
            return find(f, **options)(p, *data)

        def jacfwd(p: Any, *data: Any) -> Any:
            return ad.jacfwd(f, **options)(p, *data)

        def hessian(p: Any, *data: Any) -> Any:
            return ad.hessian(f, **options)(p, *data)

        return {"value": f, "gradient": grad, "jvp": jvp, "hvp": hvp, "jacobian": jacobian, "jacfwd": jacfwd, "hessian": hessian}[call]

    def call_arguments(self, program: Scenario, call: str) -> tuple[Any, ...]:
        arguments = tuple(self.arguments(program))
        return (*arguments, jax.tree.map(jnp.asarray, direction(arguments[0]))) if call in ("jvp", "hvp") else arguments

    def prepare(self, program: Scenario, call: str) -> Run:
        run = self.function(program, call)
        if self.compiled:
            run = jax.jit(run)
        arguments = self.call_arguments(program, call)
        return lambda: jax.block_until_ready(run(*arguments))


class TorchLike(Library):
    """PyTorch, and dualrev's imperative face."""

    def __init__(self, name: str, module: str, compiled: bool = False):
        super().__init__(name, module)
        self.compiled = compiled

    @functools.cached_property
    def namespace(self) -> Any:
        return TorchNamespace(self.module)

    def prepare(self, program: Scenario, call: str) -> Run:
        if program.derivative is not None:
            raise NotImplementedError("the program is written in jax")
        if self.compiled and program.steps > MOST_UNROLLED:
            raise NotImplementedError(f"its loop has more than {MOST_UNROLLED} steps, which would become one program")
        torch, f = self.module, on(self.namespace, program)
        p, *data = self.arguments(program)
        leaves, structure = jax.tree.flatten(p)
        along = [self.namespace.array(v) for v in jax.tree.leaves(direction(program.draw()[0]))]

        def of_leaves(*leaves: Any) -> Any:
            return f(jax.tree.unflatten(structure, leaves), *data)

        def gradient() -> Any:
            active = [x.detach().requires_grad_() for x in leaves]
            return torch.autograd.grad(of_leaves(*active), active)

        def hvp() -> Any:
            active = [x.detach().requires_grad_() for x in leaves]
            slopes = torch.autograd.grad(of_leaves(*active), active, create_graph=True)
            return torch.autograd.grad(sum((g * v).sum() for g, v in zip(slopes, along, strict=True)), active)

        def value() -> Any:
            with torch.no_grad():
                return of_leaves(*leaves)

        runs: dict[str, Run] = {
            "value": value, "gradient": gradient, "hvp": hvp,
            "jvp": lambda: torch.func.jvp(of_leaves, tuple(leaves), tuple(along)),
            "jacobian": lambda: torch.func.jacrev(of_leaves)(*leaves), "jacfwd": lambda: torch.func.jacfwd(of_leaves)(*leaves),
            "hessian": lambda: torch.func.hessian(of_leaves)(*leaves),
        }
        run = torch.jit(runs[call]) if self.compiled else runs[call]
        # The imperative face returns before jax has computed, if jax has been told to; to read the numbers is to wait for them.

        def waited() -> Any:
            result = run()
            self.numbers(result)
            return result

        return waited

    def numbers(self, result: Any) -> list[np.ndarray]:
        # A tensor of the imperative face is no leaf that jax knows, but anything that is no container is one.
        return [x.detach().numpy() for x in jax.tree.leaves(result)]


class Autograd(Library):
    """HIPS autograd."""

    @functools.cached_property
    def namespace(self) -> Any:
        _ = self.module
        return AutogradNamespace(importlib.import_module("autograd.numpy"))

    def prepare(self, program: Scenario, call: str) -> Run:
        if program.derivative is not None:
            raise NotImplementedError("the program is written in jax")
        if call == "jacfwd":
            raise NotImplementedError("autograd pushes one direction at a time")
        ad, f = self.module, on(self.namespace, program)
        p, *data = program.draw()
        v = direction(p)

        def jvp() -> Any:
            return ad.make_jvp(lambda p: f(p, *data))(p)(v)

        # Of vectors: autograd multiplies no dictionaries.
        flatten = importlib.import_module("autograd.misc").flatten
        x, unflatten = flatten(p)
        along = flatten(v)[0]

        def hvp() -> Any:
            return unflatten(ad.hessian_vector_product(lambda x: f(unflatten(x), *data))(x, along))

        runs: dict[str, Run] = {
            "value": lambda: f(p, *data), "gradient": lambda: ad.grad(f)(p, *data), "jvp": jvp, "hvp": hvp,
            "jacobian": lambda: ad.jacobian(f)(p, *data), "hessian": lambda: ad.hessian(f)(p, *data),
        }
        return runs[call]


#: Those that make programs for XLA.
COMPILING = {library.name: library for library in (JaxLike("dualrev", "dualrev"), JaxLike("jax", "jax"))}

LIBRARIES: dict[str, Library] = {library.name: library for library in (
    COMPILING["dualrev"],
    JaxLike("dualrev forward", "dualrev", engine="forward"),
    JaxLike("dualrev reverse", "dualrev", engine="reverse"),
    JaxLike("dualrev auto", "dualrev", engine="auto"),
    JaxLike("dualrev un-jitted", "dualrev", compiled=False),
    TorchLike("eager", "dualrev.eager"),
    TorchLike("eager.jit", "dualrev.eager", compiled=True),
    COMPILING["jax"],
    JaxLike("jax un-jitted", "jax", compiled=False),
    TorchLike("PyTorch", "torch"),
    Autograd("autograd", "autograd"),
)}
#: Those that run a program as Python, operation by operation.
UNJITTED = ("dualrev un-jitted", "eager", "jax un-jitted", "PyTorch", "autograd")


def reference(program: Scenario, call: str) -> list[np.ndarray]:
    """The numbers that jax finds, which the others have to agree with."""
    library = LIBRARIES["jax"]
    if call == "gradient" and program.otherwise:
        return library.numbers(program.otherwise())
    return library.numbers(library.prepare(program, call)())


class DisagreementError(AssertionError):
    """A result that is not that of the others: there is nothing to time."""


def agree(name: str, found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference of any two arrays, over the largest entry; more than rounding is an error."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        raise DisagreementError(f"{name}: shapes {[x.shape for x in found]}, not {[x.shape for x in expected]}")
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        if y.size == 0:
            continue
        difference = float(np.max(np.abs(x.astype(float) - y.astype(float)))) / max(float(np.max(np.abs(y))), 1e-6)
        if not difference <= (5e-3 if y.dtype == np.float32 else 1e-7):
            raise DisagreementError(f"{name}: differs by {difference:.1e}")
        worst = max(worst, difference)
    return worst


def checked(library: str, program: Scenario, call: str, expected: list[np.ndarray], warm: int = 3, at_most: float = 1.0) -> Run:
    """A run whose result is that of the others, warm after so many calls, or as many as take ``at_most`` seconds."""
    run = LIBRARIES[library].prepare(program, call)
    agree(f"{library}, {call} of {program.name}", LIBRARIES[library].numbers(run()), expected)
    end = time.perf_counter() + at_most
    for _ in range(warm):
        run()
        if time.perf_counter() > end:
            break
    return run


def control(size: int = 1 << 18) -> Run:
    """Work with no differentiation in it, in NumPy alone: when it takes longer than usual, so does everything else.

    Nothing that runs on several threads: those wait for more for a while, and what is measured next would pay for it.
    """
    x = np.random.default_rng(0).uniform(size=size)
    return lambda: float(np.sort(x)[0] + np.exp(x).sum())
