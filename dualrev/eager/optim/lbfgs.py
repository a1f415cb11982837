"""The L-BFGS method, with a line search for the strong Wolfe conditions.

Vectors of all parameters, and the numbers that are decided by, are numpy's: there is a decision after each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from dualrev.eager.core.evaluation import kept
from dualrev.eager.core.modes import enable_grad, mode, no_grad
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.optim.optimizer import Optimizer, Params

Vector: TypeAlias = np.ndarray
#: A number of the parameters' dtype, or Python's.
Scalar: TypeAlias = Any
#: The loss and the gradient at a distance along the direction.
Objective: TypeAlias = Callable[[Scalar], tuple[float, Vector]]


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` changes of the gradient; ``step`` needs a closure.

    Args:
      params: one group.
      lr: the length of a step, or the first one that the line search tries.
      max_iter, max_eval: how many iterations and evaluations of the closure a step makes; by default 20 and 25.
      tolerance_grad, tolerance_change: a step ends where the gradient, or a change, is smaller.
      history_size: how many changes are kept.
      line_search_fn: None or ``"strong_wolfe"``.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> optimizer = torch.optim.LBFGS([x], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(3):
    ...     loss = optimizer.step(closure)
    >>> x.round(decimals=2)
    tensor([1., 1.], grad_fn=<RoundBackward0>)
    """

    implementations = ()

    def __init__(self, params: Params, lr: float | Tensor = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None):
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr >= 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        super().__init__(params, dict(lr=lr, max_iter=max_iter, max_eval=max_iter * 5 // 4 if max_eval is None else max_eval,
                                      tolerance_grad=tolerance_grad, tolerance_change=tolerance_change, history_size=history_size,
                                      line_search_fn=line_search_fn))
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def _gradient(self) -> Vector:
        """The gradients of all parameters in one vector; complex numbers as pairs."""
        parts = [np.zeros(p.shape, array_of(p).dtype) if p._grad is None else np.asarray(array_of(p._grad)) for p in self._params]
        return np.concatenate([_real(part) for part in parts])

    def _move(self, start: list[np.ndarray], t: Scalar, d: Vector) -> None:
        """The parameters at a distance from where they started."""
        place = 0
        for p, x in zip(self._params, start, strict=True):
            flat = _real(x)
            moved = (flat + flat.dtype.type(t) * d[place: place + flat.size]).astype(flat.dtype)
            p.copy_(wrap(kept(moved.view(x.dtype).reshape(x.shape))))
            place += flat.size

    def _values(self) -> list[np.ndarray]:
        return [np.array(array_of(p)) for p in self._params]

    @no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make up to ``max_iter`` iterations.

        Args:
          closure: computes the loss and the gradients again, and returns the loss.

        Raises:
          RuntimeError: inside a step that is being compiled.
        """
        if closure is None:
            raise TypeError("LBFGS.step() missing 1 required positional argument: 'closure'")
        if mode.watcher is not None:
            raise RuntimeError("LBFGS.step() inside a compiled step: it decides by the values of losses\ncall it outside; the closure "
                               "may be a compiled step")
        group, state = self.param_groups[0], self.state[self._params[0]]
        lr, fn = _number(group["lr"]), group["line_search_fn"]
        most, evaluations, change = group["max_iter"], group["max_eval"], group["tolerance_change"]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        def evaluated() -> tuple[float, Vector]:
            with enable_grad():
                value = closure()
            return float(value), self._gradient()

        with enable_grad():
            first = closure()
        loss, g = float(first), self._gradient()
        used = 1
        state["func_evals"] += 1
        if abs(g).max() <= group["tolerance_grad"]:
            return first
        memory = _Memory(state, group["history_size"])
        n, before = 0, loss
        while n < most:
            n += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                memory.begin(g)
            else:
                memory.turn(g)
            memory.gradient, before = g.copy(), loss
            d = memory.d
            t: Scalar = min(1.0, 1.0 / abs(g).sum()) * lr if state["n_iter"] == 1 else lr
            slope = g.dot(d)
            if slope > -change:
                memory.t = t
                break
            start = self._values()
            tried = 0
            small = False
            if fn is not None:
                if fn != "strong_wolfe":
                    raise RuntimeError("only 'strong_wolfe' is supported")

                def along(t: Scalar, start: list[np.ndarray] = start, d: Vector = d) -> tuple[float, Vector]:
                    self._move(start, t, d)
                    return evaluated()

                loss, g, t, tried = strong_wolfe(along, t, d, loss, g, slope, most=evaluations - used)
                self._move(start, t, d)
                small = abs(g).max() <= group["tolerance_grad"]
            else:
                self._move(start, t, d)
                if n != most:
                    loss, g = evaluated()
                    small = abs(g).max() <= group["tolerance_grad"]
                    tried = 1
            memory.t = t
            used += tried
            state["func_evals"] += tried
            if n == most or used >= evaluations or small or abs(d * t).max() <= change or abs(loss - before) < change:
                break
        memory.keep(state)
        state["prev_loss"] = before
        return first


class _Memory:
    """The direction, and the changes of parameters and gradients that it is computed from."""

    def __init__(self, state: dict[str, Any], size: int):
        self.size = size
        read = {k: state[k] for k in ("d", "prev_flat_grad") if k in state}
        self.d = np.asarray(array_of(read["d"])) if read else np.zeros(0)
        self.gradient = np.asarray(array_of(read["prev_flat_grad"])) if read else np.zeros(0)
        self.t: Scalar = _number(state.get("t", 0))
        self.gradients = [np.asarray(array_of(x)) for x in state.get("old_dirs", ())]
        self.steps = [np.asarray(array_of(x)) for x in state.get("old_stps", ())]
        self.ro = [_number(x) for x in state.get("ro", ())]
        self.scale: Scalar = _number(state.get("H_diag", 1))

    def begin(self, g: Vector) -> None:
        """The first direction: down the gradient."""
        self.d, self.gradients, self.steps, self.ro, self.scale = -g, [], [], [], 1

    def turn(self, g: Vector) -> None:
        """The next direction, by the two loops of [Nocedal1980]."""
        y, s = g - self.gradient, self.d * self.d.dtype.type(self.t)
        ys = y.dot(s)
        if ys > 1e-10:
            if len(self.ro) == self.size:
                for kept_ones in (self.gradients, self.steps, self.ro):
                    kept_ones.pop(0)
            self.gradients.append(y)
            self.steps.append(s)
            self.ro.append(1.0 / ys)
            self.scale = ys / y.dot(y)
        q = -g
        al = [self.scale] * len(self.ro)
        for i in reversed(range(len(self.ro))):
            al[i] = self.steps[i].dot(q) * self.ro[i]
            q = q - al[i] * self.gradients[i]
        r = q * self.scale
        for i in range(len(self.ro)):
            r = r + self.steps[i] * (al[i] - self.gradients[i].dot(r) * self.ro[i])
        self.d = r

    def keep(self, state: dict[str, Any]) -> None:
        state.update(d=wrap(kept(self.d)), t=self.t, old_dirs=[wrap(kept(x)) for x in self.gradients],
                     old_stps=[wrap(kept(x)) for x in self.steps], ro=[wrap(np.asarray(x)) for x in self.ro],
                     H_diag=self.scale if isinstance(self.scale, int) else wrap(np.asarray(self.scale)),
                     prev_flat_grad=wrap(kept(self.gradient)))


def strong_wolfe(objective: Objective, t: Scalar, d: Vector, f: float, g: Vector, slope: Scalar, c1: float = 1e-4, c2: float = 0.9,
                 change: float = 1e-9, most: int = 25) -> tuple[float, Vector, Scalar, int]:
    """The loss, the gradient, the distance and the number of evaluations, where both Wolfe conditions hold.

    [NocedalWright2006, algorithms 3.5 and 3.6], as PyTorch has them.
    """
    longest = abs(d).max()
    f_new, g_new = objective(t)
    evaluations, slope_new = 1, g_new.dot(d)
    before: tuple[Scalar, float, Vector, Scalar] = (0, f, g, slope)
    done, n = False, 0
    bracket: list[tuple[Scalar, float, Vector, Scalar]] = []
    while n < most:  # until the interval holds a point where the conditions hold
        now = (t, f_new, g_new, slope_new)
        if f_new > f + c1 * t * slope or (n > 1 and f_new >= before[1]):
            bracket = [before, now]
            break
        if abs(slope_new) <= -c2 * slope:
            bracket, done = [now], True
            break
        if slope_new >= 0:
            bracket = [before, now]
            break
        bounds = t + 0.01 * (t - before[0]), t * 10
        t = _cubic(before, now, bounds)
        before = now
        f_new, g_new = objective(t)
        evaluations += 1
        slope_new = g_new.dot(d)
        n += 1
    if n == most:
        bracket = [(0, f, g, slope), (t, f_new, g_new, slope_new)]
    low, high = (0, 1) if bracket[0][1] <= bracket[-1][1] else (1, 0)
    slow = False
    while not done and n < most:  # make the interval smaller
        ends = bracket[0][0], bracket[1][0]
        if abs(ends[1] - ends[0]) * longest < change:
            break
        t = _cubic(bracket[0], bracket[1])
        margin = 0.1 * (max(ends) - min(ends))
        near = min(max(ends) - t, t - min(ends)) < margin
        if near and (slow or t >= max(ends) or t <= min(ends)):
            t = max(ends) - margin if abs(t - max(ends)) < abs(t - min(ends)) else min(ends) + margin
            near = False
        slow = near
        f_new, g_new = objective(t)
        evaluations += 1
        slope_new = g_new.dot(d)
        n += 1
        now = (t, f_new, g_new, slope_new)
        if f_new > f + c1 * t * slope or f_new >= bracket[low][1]:
            bracket[high] = now
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
            continue
        if abs(slope_new) <= -c2 * slope:
            done = True
        elif slope_new * (bracket[high][0] - bracket[low][0]) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = now
    t, f_new, g_new, _ = bracket[low]
    return f_new, g_new, t, evaluations


def _cubic(a: tuple[Scalar, float, Vector, Scalar], b: tuple[Scalar, float, Vector, Scalar],
           bounds: tuple[Scalar, Scalar] | None = None) -> Scalar:
    """The minimum of the cubic with the values and slopes at two points, or the middle of the bounds."""
    (x1, f1, _, g1), (x2, f2, _, g2) = a, b
    low, high = bounds or (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 ** 2 - g1 * g2
    if not square >= 0:
        return (low + high) / 2.0
    d2 = np.sqrt(square)
    with np.errstate(divide="ignore", invalid="ignore"):
        if x1 <= x2:
            least = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
        else:
            least = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(least, low), high)


def _real(x: np.ndarray) -> np.ndarray:
    """The entries in one dimension; a complex one as two."""
    flat = np.ascontiguousarray(x).reshape(-1)
    return flat.view(flat.real.dtype) if np.iscomplexobj(flat) else flat


def _number(x: Any) -> Scalar:
    """A number that may stand in a tensor."""
    return np.asarray(array_of(x)).reshape(())[()] if isinstance(x, Tensor) else x
