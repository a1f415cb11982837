"""Time of each derivative in each library, of the function itself, and of a control."""

from __future__ import annotations

import jax

from benchmarks.libraries import COMPILING, control
from benchmarks.programs import HESSIANS, JACOBIANS, PROGRAMS
from benchmarks.suite.common import Derivative, Expected, Warm, expected, grid, named
from benchmarks.timing import temporary


class Control(Warm):
    """No differentiation, and no library of it: these times say how fast the machine was."""

    def setup(self) -> None:
        self.ready("control", control)

    def time_numpy(self) -> None:
        self.run()


class Function(Derivative):
    call, programs = "value", named(PROGRAMS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("value", PROGRAMS)

    def time_function(self, *_: object) -> None:
        self.run()


class Gradient(Derivative):
    programs = named(PROGRAMS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("gradient", PROGRAMS)

    def time_gradient(self, *_: object) -> None:
        self.run()


class Push(Derivative):
    call, programs = "jvp", named(PROGRAMS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("jvp", PROGRAMS)

    def time_jvp(self, *_: object) -> None:
        self.run()


class Jacobian(Derivative):
    call, programs = "jacobian", named(JACOBIANS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("jacobian", JACOBIANS)

    def time_jacobian(self, *_: object) -> None:
        self.run()


class ForwardJacobian(Derivative):
    """All columns at once, each a push."""

    call, programs = "jacfwd", named(JACOBIANS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("jacfwd", JACOBIANS)

    def time_jacfwd(self, *_: object) -> None:
        self.run()


class Hessian(Derivative):
    call, programs = "hessian", named(HESSIANS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("hessian", HESSIANS)

    def time_hessian(self, *_: object) -> None:
        self.run()


class HessianProduct(Derivative):
    """The product of a Hessian and a vector: its time, and the most memory of its process."""

    call, programs = "hvp", named(PROGRAMS)
    params = grid(programs)

    def setup_cache(self) -> Expected:
        return expected("hvp", [program for program in PROGRAMS if program.derivative is None])

    def time_hvp(self, *_: object) -> None:
        self.run()

    def peakmem_hvp(self, *_: object) -> None:
        self.run()


class Temporary:
    """Room that compiled programs take for what they compute on the way."""

    params = (*grid(named(PROGRAMS), COMPILING), ["gradient", "hvp"])
    param_names = ("program", "library", "call")
    unit = "bytes"

    def track_temporary_bytes(self, program: str, library: str, call: str) -> int:
        found, adapter = named(PROGRAMS)[program], COMPILING[library]
        if call == "hvp" and found.derivative is not None:
            raise NotImplementedError(f"{program} has no hvp")
        return temporary(jax.jit(adapter.function(found, call)).lower(*adapter.call_arguments(found, call)).compile())
