"""The ways to a derivative that are compared: each is a line of code, and the function that this line makes."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from dualrev._jax.calls import scan_p
from dualrev._jax.trees import PyTree
from dualrev.calls.checkpoint_policies import min_cut
from dualrev.functional.automatic import Asking, has_few_inputs
from dualrev.functional.checkpointing import checkpoint
from dualrev.functional.choices import Choice
from dualrev.functional.gradients import grad
from dualrev.functional.jacobians import hessian, jacfwd, jacobian
from dualrev.functional.waists import narrowest
from dualrev.inspection.explanation.question import Question
from dualrev.options.settings import Options
from dualrev.programs.partition import eqns_within, graph_of

CALLS: Mapping[str, Callable[..., Any]] = {"grad": grad, "jacobian": jacobian, "jacfwd": jacfwd, "hessian": hessian}

#: What the tape of a variant holds: nothing, the residuals of the function, or those of its gradient.
Tape: TypeAlias = Literal["none", "function", "gradient"]


@dataclass(frozen=True)
class Candidate:
    """A way to the derivative."""

    name: str
    #: The line that makes the derivative, and that derivative, without ``jit``.
    code: str
    derivative: Callable[..., PyTree]
    #: How often tangents are pushed or cotangents pulled, and in words.
    passes: int
    how: str
    tape: Tape
    #: The function that the tape is of, with its options.
    taped: Callable[..., PyTree]
    options: Options = field(default_factory=Options)
    #: The way whose price it has, with one more evaluation of the function: of loops that are replayed block by block, the program does
    #: not tell how many steps they make.
    priced_as: str = ""


class Lines:
    """Writes the line of code of a candidate."""

    def __init__(self, asked: Question):
        self.asked = asked
        own = getattr(asked.fun, "__name__", "")
        self.function = own if own.isidentifier() and not keyword.iskeyword(own) and own not in ("jax", "dr") else "f"
        self.positions, self.names, self.nested = asked.fixed_arguments

    @property
    def static(self) -> dict[str, Any]:
        """The options of ``jit`` and ``checkpoint`` about arguments that are no arrays."""
        found: dict[str, Any] = {}
        if self.positions:
            found["static_argnums"] = self.positions
        if self.names:
            found["static_argnames"] = self.names
        return found

    def candidate(self, name: str, passes: int, how: str, tape: Tape, call: str | None = None, stored: Mapping[str, Any] | None = None,
                  texts: Mapping[str, str] | None = None, **options: Any) -> Candidate:
        """``call(f, **options)``, of a checkpointed function where ``stored`` are the options of ``checkpoint``.

        ``texts`` says how an option is written that does not show itself so.
        """
        asked = self.asked
        call = call or asked.derivative
        function, text = asked.fun, self.function
        if stored is not None:
            given = {**stored, **self.static}
            function, text = checkpoint(asked.fun, **given), f"dr.checkpoint({', '.join([text, *_spelled(given, texts)])})"
        about: dict[str, Any] = {} if asked.argnums == 0 else {"argnums": asked.argnums}
        if asked.has_aux:
            about["has_aux"] = True
        plain: dict[str, Any] = {} if asked.is_plain else {"non_float": "none"}
        derived = f"dr.{call}({', '.join([text, *_spelled({**about, **options, **plain}, texts)])})"
        code = derived if self.nested else f"jax.jit({', '.join([derived, *_spelled(self.static)])})"
        taped = grad(function, asked.argnums, asked.has_aux, **plain) if tape == "gradient" else function
        of_tape: Options = {key: value for key, value in options.items() if key in Options.__annotations__}  # type: ignore[assignment]
        return Candidate(name, code, CALLS[call](function, **about, **options, **plain), passes, how, tape, taped, of_tape)


def _spelled(options: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> list[str]:
    return [f"{key}={(texts or {}).get(key) or _written(value)}" for key, value in options.items()]


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))}{',' if len(value) == 1 else ''})"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def candidates(asked: Question, choice: Choice) -> tuple[list[Candidate], dict[str, str]]:
    """The ways that are compared, and why others are not; ``choice`` is what ``engine="auto"`` says."""
    of: Mapping[str, Callable[[Question, Choice, Lines, dict[str, str]], list[Candidate]]] = {
        "grad": _gradients, "jacobian": _jacobians, "hessian": _hessians}
    left_out = dict(choice.left_out)
    found = of[asked.derivative](asked, choice, Lines(asked), left_out)
    names = {each.name for each in found}
    return found, {name: reason for name, reason in left_out.items() if name not in names}


def _pushes(n: int) -> str:
    return f"{n:,} push{'' if n == 1 else 'es'}"


def _pulls(n: int) -> str:
    return f"{n:,} pull{'' if n == 1 else 's'}"


def _checkpointed(line: Callable[..., Candidate], name: str, passes: int, how: str, **options: Any) -> list[Candidate]:
    """The same with less stored: by a cut of fewest bytes, by a cut of least time, and inputs alone."""
    by_time = {"policy": 'dr.policies.min_cut(objective="time")'}
    return [line(f"{name}, fewest bytes stored", passes, how, "function", stored={"policy": "auto"}, **options),
            line(f"{name}, stored where faster", passes, how, "function", stored={"policy": min_cut(objective="time")}, texts=by_time,
                 **options),
            line(f"{name}, inputs stored", passes, how, "function", stored={}, **options)]


def _has_scans(asked: Question) -> bool:
    return any(eqn.primitive is scan_p for eqn in eqns_within(asked.program))


def _gradients(asked: Question, choice: Choice, lines: Lines, left_out: dict[str, str]) -> list[Candidate]:
    line = lines.candidate
    found = [line("reverse", 1, "1 pull", "function")]
    asking = Asking(asked.fun, asked.positions, asked.has_aux, asked.args, asked.kwargs, True)
    if (reason := has_few_inputs(asking)) is None:
        found.append(line("forward", asked.n, _pushes(asked.n), "none", engine="forward"))
    else:
        left_out["forward"] = reason
    found += _checkpointed(line, "reverse", 1, "1 pull")
    if _has_scans(asked):
        blocks = line("reverse, √n states of loops stored", 1, "1 pull", "function", schedule="sqrt")
        found.append(dataclasses.replace(blocks, priced_as="reverse"))
        found.append(line("reverse, fewest residuals of loops", 1, "1 pull", "function", recompute_residuals=True))
    return found


def _compressed(choice: Choice, line: Callable[..., Candidate]) -> list[Candidate]:
    """The way by colours, where it was considered."""
    plan = choice.sparse
    if plan is None:
        return []
    forward, reverse = plan.forward_colours, plan.reverse_colours
    how = ", ".join([*([_pushes(forward)] if forward else []), *([_pulls(reverse)] if reverse else [])]) or "0 passes"
    return [line("sparse", forward + reverse, f"{how} of colours", "function" if reverse or plan.kind == "hessian" else "none",
                 engine="sparse")]


def _jacobians(asked: Question, choice: Choice, lines: Lines, left_out: dict[str, str]) -> list[Candidate]:
    line, n, m = lines.candidate, asked.n, asked.m
    found = _compressed(choice, line)
    pulls = _pulls(m)
    found += [line("reverse", m, pulls, "function", engine="reverse"), line("forward", n, _pushes(n), "none", engine="forward"),
              line("tape", n, f"{_pushes(n)} of a tape", "function", call="jacfwd", engine="reverse"),
              line("reverse, fewest bytes stored", m, pulls, "function", stored={"policy": "auto"}, engine="reverse")]
    if "elimination" in choice.seconds or choice.chosen == "elimination":
        found.append(line("elimination", 0, "products of local Jacobians", "function", engine="elimination"))
    if "waist" in choice.seconds or choice.chosen == "waist":
        waist = narrowest(graph_of(asked.program))
        size = 0 if waist is None else waist.size
        found.append(line("waist", 2 * size, f"{_pulls(size)}, {_pushes(size)}", "function", engine="waist"))
    return found


def _hessians(asked: Question, choice: Choice, lines: Lines, left_out: dict[str, str]) -> list[Candidate]:
    line, n = lines.candidate, asked.n
    found = _compressed(choice, line)
    found += [line("forward over reverse", n, f"{_pushes(n)} of 1 pull", "function"),
              line("forward over reverse, fewest bytes stored", n, f"{_pushes(n)} of 1 pull", "function", stored={"policy": "auto"}),
              line("reverse", n, f"{_pulls(n)} of 1 pull", "gradient", engine="reverse")]
    if "forward" in choice.seconds:
        found.append(line("forward", n * n, f"{_pushes(n)} of {_pushes(n)}", "none", engine="forward"))
    return found
