"""The limits of a check, and what it left out where one was reached."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Limits:
    """How much a check looks at, and in ``reached``, by place, what it did not look at and how to check that."""

    steps: int = 64
    operations: int = 600
    calls: int = 4
    reached: dict[str, str] = field(default_factory=dict)

    def leave_out_steps(self, loop: str, steps: int) -> None:
        self.reached[loop] = (
            f"steps {self.steps} to {steps - 1} of the {loop}, operation by operation: they ran compiled, and of the whole function "
            f"only the derivatives that are compared include them. check(f, most_steps={steps}) looks at all")

    def leave_out_batched_loop(self, loop: str) -> None:
        self.reached[loop] = (f"the steps of the {loop}, whose examples under vmap take different numbers of them. Check the "
                              "function of one example: check(f)(x[i])")

    def leave_out_operations(self, operations: int) -> None:
        self.reached["operations"] = (
            f"operations after the first {self.operations}, when the one to blame was looked for: a wrong one may stand behind them "
            f"({operations} were met). check(f, most_operations={operations}) looks at all; or check parts of the function")

    def leave_out_calls(self, name: str, line: str, calls: int) -> None:
        at = f" at {line}" if line else ""
        self.reached[f"{name}{at}"] = (f"the rule of {name!r} in {calls - self.calls} of its {calls} calls{at}: it was compared in the "
                                       f"first {self.calls}. check(f, most_calls={calls}) compares all")


#: Those of the check that runs.
limits: ContextVar[Limits] = ContextVar("limits")
