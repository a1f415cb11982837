"""What ``engine="auto"`` chose, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from dualrev.functional.checks import name_of
from dualrev.sparse.plans import Plan
from dualrev.time_model import time_in_words

P = ParamSpec("P")
Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class Choice:
    """The way to a derivative that ``engine="auto"`` chose for arguments of some shapes; ``print`` shows why.

    It is what ``plan`` of a derivative returns, for the arguments of its function: ``dr.jacobian(f).plan(x)``, also of ``hessian``,
    ``grad`` and ``value_and_grad``.  A ``jax.ShapeDtypeStruct`` does for an array; nothing is compiled or run.

    Attributes:
      call: the derivative that was asked for, and ``name`` the name of its function.
      chosen: the way, and ``force`` what to write to have it whatever is predicted.
      seconds: for each way that was priced, the predicted seconds of one compiled call.
      left_out: for each way that was not, the count that speaks against it.
      sparse: pattern and colours, where the compressed way was considered.
      constants: the constants of the time model by which it was priced.
      unjitted: the way that a call takes outside of ``jit``, where operations run one at a time.
      is_asked: whether the user chose the way.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> choice = dr.jacobian(lambda x: jnp.roll(x, 1) * x).plan(jnp.ones(2000))
    >>> choice.chosen, choice.sparse.forward_colours
    ('sparse', 2)
    """

    call: str
    name: str
    chosen: str
    force: str
    seconds: Mapping[str, float]
    left_out: Mapping[str, str]
    sparse: Plan | None
    constants: str
    unjitted: str = ""
    is_asked: bool = False

    def with_unjitted(self, other: Choice) -> Choice:
        return dataclasses.replace(self, unjitted=other.chosen)

    def __str__(self) -> str:
        how = "asked for" if self.is_asked else "predicted to be the fastest" if self.seconds else "by counts"
        lines = [f"{self.call} of {self.name}: {self.chosen}, {how}; {self.force}"]
        for name, seconds in sorted(self.seconds.items(), key=lambda item: item[1]):
            lines.append(f"  {name}: {time_in_words(seconds)} predicted")
        lines += [f"  {name}: not considered, {why}" for name, why in self.left_out.items()]
        if self.sparse is not None:
            lines.append(f"  {self.sparse!r}")
        if self.unjitted and self.unjitted != self.chosen:
            lines.append(f"  outside of jit: {self.unjitted}")
        return "\n".join(lines)


class Planned(Protocol[P, Result]):
    """A derivative that says how it is found."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result: ...

    def plan(self, *args: P.args, **kwargs: P.kwargs) -> Choice:
        """The way that is taken for such arguments, and why."""


def with_plan(derived: Callable[P, Result], plan: Callable[..., Choice]) -> Planned[P, Result]:
    """The same function, with its ``plan``."""
    known: Any = derived
    known.plan = plan
    return cast(Planned[P, Result], known)


def as_asked(derived: Callable[P, Result], call: str, fun: Callable[..., Any], chosen: str, force: str = "") -> Planned[P, Result]:
    """A derivative whose way the user chose."""

    def plan(*_: Any, **__: Any) -> Choice:
        return Choice(call, name_of(fun), chosen, force or f'{call}(f, engine="{chosen}")', {}, {}, None, "", chosen, is_asked=True)

    return with_plan(derived, plan)
