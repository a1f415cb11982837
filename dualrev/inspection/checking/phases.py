"""The phases of a check, in order, and the findings that they add; what stops a check is found first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev.inspection.checking import custom_rules, decisions, dependence, locating, precision, words
from dualrev.inspection.checking.decisions import Decision
from dualrev.inspection.checking.derivatives import Derivatives, Mismatch, mismatches, pull, push, second_mismatches
from dualrev.inspection.checking.differences import moved, one_sided
from dualrev.inspection.checking.directions import normal, relative, wide
from dualrev.inspection.checking.limits import limits
from dualrev.inspection.checking.operations import RULED, Key, Operation, Walk, directions, equations
from dualrev.inspection.checking.report import Finding, Severity
from dualrev.inspection.checking.subject import Program, Subject


class Phases:
    """One check of a function at a point."""

    def __init__(self, subject: Subject, order: int, seed: int, near: float, surrogates: Severity):
        self.subject, self.order, self.seed, self.near, self.surrogates = subject, order, seed, near, surrogates
        self.findings: list[Finding] = []
        self.done: list[str] = []
        #: The operations that findings already name.
        self.named: set[int] = set()

    def run(self) -> None:
        own = self.subject.own()
        if not self._is_same_again(own):
            return
        double = self.subject.double()
        program = own if double is None else double
        self._blocked(own)
        if not own.active:
            return
        derivatives = Derivatives(program.of_points, program.jaxpr is not None)
        with program.settings():
            outs, again = derivatives.value(*program.points), derivatives.value(*program.points)
            if not _same(outs, again, program.precision):
                self.findings.append(words.not_deterministic(_first_difference(program, program)))
                return
            if not outs:
                self.findings.append(words.no_outputs())
                return
            if not all(map(locating.is_finite, outs)):
                self.findings.append(words.not_finite(None if program.jaxpr is None else locating.first_not_finite(
                    program.jaxpr, program.flat)))
                return
            self._derivatives(program, derivatives, outs)
        if double is not None and not any(f.kind in ("not finite", "no derivative") and f.order != 2 for f in self.findings):
            found = None if _draws(double) else precision.loss(own, double, derivatives, self.seed)
            if found is not None:
                self.findings.append(words.precision(found, sorted({str(x.dtype) for x in own.points})))
        self._say_how(program, double)

    def _say_how(self, program: Program, double: Program | None) -> None:
        dtypes = sorted({str(x.dtype) for x in self.subject.flat}) or ["no arrays"]
        how = "" if double is None else ", evaluated in double precision"
        self.done.append(f"{len(program.points)} inputs ({', '.join(dtypes)}){how}; order {self.order}, both modes, seed {self.seed}")
        if program.jaxpr is None:
            self.done.append("the function needs values in Python and can't be traced: operations were not looked at one by one")

    # ------------------------------------------------------------------------------------------- before any derivative

    def _is_same_again(self, own: Program) -> bool:
        """Whether the function is the same program when it is traced again, or gives the same result."""
        again = self.subject.own()
        if own.jaxpr is not None and again.jaxpr is not None and str(own.jaxpr) == str(again.jaxpr) and _same(
                own.jaxpr.consts, again.jaxpr.consts, 0.0):
            return True
        with own.settings():
            if _same(own.run(*own.flat), again.run(*again.flat), own.precision):
                return True
        self.findings.append(words.not_deterministic(_first_difference(own, again)))
        return False

    def _blocked(self, own: Program) -> None:
        if own.jaxpr is None:
            return
        for i, block in sorted(dependence.blocked(own.jaxpr).items()):
            finding = words.blocked(self.subject.inputs[i], block, i in own.active, bool(own.active))
            if finding is not None:
                self.findings.append(finding)

    # ----------------------------------------------------------------------------------------------------- derivatives

    def _derivatives(self, program: Program, own: Derivatives, outs: Sequence[jax.Array]) -> None:
        fun, points, eps = program.of_points, program.points, program.precision
        rng = np.random.default_rng(self.seed)
        ts, cs = [relative(rng, x) for x in points], [normal(rng, x) for x in outs]
        try:
            first = own.first(points, ts, cs)
        except Exception as error:
            self._raised(fun, points, ts, cs, error)
            if program.jaxpr is not None:
                self._custom_rules(program, program.jaxpr)
            return
        if not all(map(locating.is_finite, first)):
            found = None if program.jaxpr is None else locating.first_without_slope(program.jaxpr, program.flat, self.seed)
            forward = all(map(locating.is_finite, first[: len(outs)]))
            self.findings.append(words.no_slope(found and found[0], "reverse" if forward else "forward"))
            return
        near: list[Decision] = []
        if program.jaxpr is not None:
            near = decisions.near(program.jaxpr, program.flat, program.active, ts, eps, self.near)
            self._custom_rules(program, program.jaxpr)
        found_first = mismatches(own, points, outs, self.seed, eps)
        self._explain(program, found_first, near, 1)
        is_smooth = self._kinks(own, points, ts, eps, near, found_first)
        if self.order > 1:
            doubtful = ("derivative", "custom rule", "foreign rule", "stopped", "undecided")
            compares = is_smooth and not any(f.kind in doubtful for f in self.findings)
            try:
                found_second = second_mismatches(own, points, outs, self.seed, eps, compares)
            except Exception as error:
                self.findings.append(words.no_second(error))
                return
            self._explain(program, found_second, near, 2)

    def _raised(self, fun: Callable[..., list[jax.Array]], points: list[jax.Array], ts: list[jax.Array], cs: list[jax.Array],
                error: Exception) -> None:
        """Which mode raises an error."""
        modes = []
        for mode, derive in (("forward", lambda: push(fun, points, ts)), ("reverse", lambda: pull(fun, points, cs))):
            try:
                derive()
            except Exception as its_own:
                modes.append(mode)
                error = its_own
        self.findings.append(words.no_derivative(modes, error))

    def along(self, program: Program) -> dict[Key, list[jax.Array]]:
        """How the operands of each operation change along a random direction of the inputs."""
        if program.jaxpr is None:
            return {}
        step = program.precision ** (1 / 3) / 8
        rng = np.random.default_rng(self.seed)
        there = list(program.flat)
        ts = [relative(rng, x) for x in program.points]
        for i, x in zip(program.active, moved(program.points, ts, step), strict=True):
            there[i] = x
        return directions(program.jaxpr, program.flat, there, step)

    def _custom_rules(self, program: Program, jaxpr: ClosedJaxpr) -> None:
        if not any(eqn.primitive in RULED for eqn in equations(jaxpr)):
            return
        along, eps = self.along(program), program.precision
        counts: dict[int, int] = {}
        worst: dict[int, custom_rules.Difference] = {}
        ruled: dict[int, Operation] = {}

        def visit(operation: Operation) -> bool:
            if not operation.is_ruled:
                return True
            key = id(operation.eqn)
            counts[key] = counts.get(key, 0) + 1
            ruled[key] = operation
            if counts[key] <= limits.get().calls:
                ts = along.get(operation.key)
                found = None if ts is None else custom_rules.difference(
                    operation, ts, self.seed, locating.precision_of(operation.operands, eps))
                if found is not None and (key not in worst or worst[key].relative < found.relative):
                    worst[key] = found
            return False

        Walk(visit).run(jaxpr, program.flat)
        for key, count in counts.items():
            if count > limits.get().calls:
                limits.get().leave_out_calls(ruled[key].name, ruled[key].line, count)
        for key, found in worst.items():
            self.named.add(key)
            self.findings.append(words.custom_rule(found, self.surrogates))

    def _names(self, program: Program, found: Sequence[Mismatch]) -> str:
        """The inputs by which derivatives are wrong."""
        return ", ".join(dict.fromkeys(self.subject.inputs[program.active[i]] for m in found for i in m.inputs))

    def _explain(self, program: Program, found: Sequence[Mismatch], near: Sequence[Decision], order: int) -> None:
        """Findings for what does not agree: the operations to blame, or that none is."""
        wrong = [m for m in found if not (m.at_kink or m.undecided)]
        at_point = [d for d in near if d.distance < 1e-12]
        if wrong:
            names = self._names(program, wrong)
            along = self.along(program)
            blamed = [] if program.jaxpr is None else locating.culprits(
                program.jaxpr, program.flat, along, order, self.seed, program.precision)
            for culprit in blamed:
                if id(culprit.operation.eqn) not in self.named:
                    self.named.add(id(culprit.operation.eqn))
                    operation, different = culprit.operation, None
                    if operation.is_ruled and order == 1 and operation.key in along:
                        different = custom_rules.difference(operation, along[operation.key], self.seed, program.precision)
                    self.findings.append(words.culprit(culprit, names, different, self.surrogates))
            self.findings[:] = [words.with_input(f, names) for f in self.findings]
            if not blamed and not self.named:
                self.findings.append(words.unlocated(wrong[0], names, at_point, program.jaxpr is not None))
        undecided = [m for m in found if m.undecided and not m.at_kink]
        if undecided and not near and not wrong and not any(f.kind == "undecided" for f in self.findings):
            self.findings.append(words.undecided(undecided[0], self._names(program, undecided)))

    def _kinks(self, own: Derivatives, points: list[jax.Array], ts: list[jax.Array], eps: float, near: Sequence[Decision],
               found: Sequence[Mismatch]) -> bool:
        """Findings for decisions at the point and near it; whether the function is smooth at the point."""
        at_kink = [m for m in found if m.at_kink]
        at_point = [d for d in near if d.distance < 1e-12]
        is_kink = bool(at_kink)
        if at_point and not is_kink:
            ahead, behind = one_sided(own.value, points, ts, eps)
            slack = 1e-3 if eps < 1e-10 else 0.1
            here = [float(np.max(np.abs(wide(x)), initial=0.0)) for x in own.value(*points)]
            with np.errstate(all="ignore"):
                is_kink = any(bool((~(np.abs(a - b) <= slack * np.maximum(np.abs(a), np.abs(b)) + 1e-6 * (1e-6 + size))).any())
                              for a, b, size in zip(ahead, behind, here, strict=True))
        blamed = {f.operation for f in self.findings if f.kind == "non-smooth"}
        for decision in at_point if not blamed else []:
            self.findings.append(words.at_kink(decision) if is_kink else words.harmless(decision))
        if is_kink and not near:
            self.findings.append(words.kink_of_unknown_origin(at_kink[0]))
        self.findings.extend(words.near(d) for d in near if d not in at_point)
        return not is_kink


def _draws(program: Program) -> bool:
    """Whether a program draws random numbers, which are others in double precision."""
    names = {str(eqn.primitive) for eqn in equations(program.jaxpr)} if program.jaxpr is not None else set()
    return any(name.startswith(("random_", "rng_", "threefry")) for name in names)


def _same(first: Sequence[jax.Array], second: Sequence[jax.Array], eps: float) -> bool:
    def numbers(x: jax.Array) -> np.ndarray:
        if not hasattr(x, "dtype"):
            return np.asarray(0)
        return np.asarray(jax.random.key_data(x)) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else wide(x)

    return len(first) == len(second) and all(
        x.shape == y.shape and np.allclose(numbers(x), numbers(y), rtol=100 * eps, atol=0, equal_nan=True)
        for x, y in zip(first, second, strict=True))


def _first_difference(own: Program, again: Program) -> Operation | None:
    """The first operation that gave two results for one function, where both traces have the same operations."""
    one, two = precision.recorded(own), precision.recorded(again)
    for (operation, results), (other, others) in zip(one, two, strict=False):
        if operation.name != other.name:
            return operation
        if not _same(results, others, own.precision):
            return operation
    return None
