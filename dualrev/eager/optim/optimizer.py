"""The base class of optimizers: groups of parameters, state, ``step``."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np

from dualrev.eager.core.caches import PROGRAM, caches
from dualrev.eager.core.dtypes import type_name
from dualrev.eager.core.evaluation import TreeEvaluation, promoting
from dualrev.eager.core.hooks import RemovableHandle
from dualrev.eager.core.modes import enable_grad, mode, no_grad
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Operand, Tensor, array_of, wrap
from dualrev.eager.optim.joined import Joined, updated

#: Parameters, or groups of them: ``{"params": ..., "lr": ...}``.
Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]]
#: The settings of a group by name: numbers, truth values, tensors, and its parameters.
Settings: TypeAlias = dict[str, Any]
#: The state of a parameter inside the program.
State: TypeAlias = dict[str, Any]
Arrays: TypeAlias = list[jax.Array]
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

#: The arguments that choose among PyTorch's implementations of an optimizer, which give the same numbers, and their defaults.
IMPLEMENTATIONS = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}


def _of_any_implementation(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that also accepts PyTorch's choices of an implementation: here one program updates all parameters.

    Raises:
      NotImplementedError: ``differentiable`` is true.
    """
    @functools.wraps(init)
    def begin(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        chosen = {name: kwargs.pop(name) for name in IMPLEMENTATIONS if name in kwargs}
        if chosen.get("differentiable"):
            raise NotImplementedError(f"{type(self).__name__}: differentiable=True is not offered\nsteps of optax through "
                                      "dualrev.grad are differentiated")
        init(self, *args, **kwargs)
        # They stand among the settings, as in the groups that PyTorch saves.
        chosen = {**{name: IMPLEMENTATIONS[name] for name in self.implementations}, **chosen}
        for settings in (self.defaults, *self.param_groups):
            for name, value in chosen.items():
                settings.setdefault(name, value)

    return begin


def _with_hooks(step: F) -> F:
    """A ``step`` that notes that it ran, and runs the hooks of its optimizer."""
    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        vars(self)["_stepped"] = True
        for before in list(self._step_pre_hooks.values()):
            given = before(self, args, kwargs)
            if given is not None:
                args, kwargs = given
        result = step(self, *args, **kwargs)
        for after in list(self._step_post_hooks.values()):
            after(self, args, kwargs)
        return result

    return run  # type: ignore[return-value]


class Optimizer:
    """Base class: a subclass defines ``defaults``, ``begin`` and ``update``.

    All parameters of a group are updated by one program: small ones as one vector where ``update`` is marked ``entrywise``.
    """

    #: Settings that are inputs of the program: they may change at each step.
    numbers: tuple[str, ...] = ("lr", "weight_decay")

    #: PyTorch's choices of an implementation that the optimizer takes.
    implementations: tuple[str, ...] = ("foreach", "capturable", "differentiable")
    #: Settings that are pairs of numbers: inputs of the program too, but static inside a compiled step.
    pairs: tuple[str, ...] = ()
    #: Whether the update reads more of a matrix than its entries one by one.
    of_matrices = False
    #: Whether a step was made: schedules warn where none was.
    _stepped = False

    def __init_subclass__(cls, **kwargs: object):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls) and cls.__module__.startswith("dualrev."):
            cls.__init__ = _of_any_implementation(vars(cls)["__init__"])  # type: ignore[method-assign]
        if "step" in vars(cls):
            cls.step = _with_hooks(vars(cls)["step"])  # type: ignore[method-assign]

    def __init__(self, params: Params, defaults: Settings):
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                            f"torch.{type_name(array_of(params).dtype)}Tensor\nput it into a list")
        self.defaults = defaults
        self._step_pre_hooks: dict[int, Callable[..., Any]] = {}
        self._step_post_hooks: dict[int, Callable[..., Any]] = {}
        self.param_groups: list[Settings] = []
        #: For each parameter, its state by name.
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        given: list[Any] = list(params)
        if not given:
            raise ValueError("optimizer got an empty parameter list")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)
        self._programs = caches.table(PROGRAM)
        #: By the number of a group, its parameters as vectors.
        self._joined: defaultdict[int, Joined] = defaultdict(Joined)

    def add_param_group(self, group: Settings) -> None:
        """Add parameters with settings of their own."""
        params = group["params"]
        if isinstance(params, set):
            raise TypeError("optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                            "will change between runs. Please use a list instead.")
        params = [params] if isinstance(params, Tensor) else list(params)
        if params and all(isinstance(p, tuple) for p in params):  # as named_parameters() gives them
            group = {**group, "param_names": [name for name, _ in params]}
            params = [p for _, p in params]
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(p) in known:
                raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append({**self.defaults, **group, "params": params})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if mode.watcher is not None:
                    mode.watcher.leaf(p, replaced=set_to_none)
                if p._grad is not None:
                    p._grad = None if set_to_none else p._grad.detach().zero_()

    def begin(self, p: jax.Array, group: Settings) -> State:
        """The state of a parameter before its first step, as arrays."""
        raise NotImplementedError(f"{type(self).__name__} must define it")

    def update(self, p: jax.Array, g: jax.Array, state: State, settings: Settings) -> tuple[jax.Array, State]:
        """The new value of a parameter, and its new state."""
        raise NotImplementedError(f"{type(self).__name__} must define it")

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return other arguments."""
        return RemovableHandle(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return RemovableHandle(self._step_post_hooks, hook)

    @_with_hooks
    def step(self, closure: Callable[[], R] | None = None) -> R | None:
        """Update each parameter that has a gradient.

        Args:
          closure: computes the loss and the gradients again, and returns the loss.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if mode.watcher is not None:
            mode.watcher.guards.optimizer(self, self.numbers)
        with no_grad():
            for i, group in enumerate(self.param_groups):
                self._step_group(i, group)
        return loss

    def _step_group(self, which: int, group: Settings) -> None:
        if mode.watcher is not None:
            for p in group["params"]:
                mode.watcher.leaf(p)
        params = [p for p in group["params"] if p._grad is not None]
        if not params:
            return
        for p in params:
            if not self.state[p]:
                value = array_of(p)
                self.state[p] = {name: wrap(x) for name, x in self.begin(value, group).items()}
        traced = (*self.numbers, *(self.pairs if mode.watcher is None else ()))
        fixed = {k: v for k, v in group.items() if k in self.defaults and k not in traced}
        fixed |= {"decays": group.get("weight_decay", 0) != 0, "damps": group.get("dampening", 0) != 0}
        key = tuple(sorted([(k, tuple(v) if isinstance(v, list) else v) for k, v in fixed.items() if not callable(v)]))
        states = [self.state[p] for p in params]
        number = constant_of if mode.watcher is None else mode.watcher.number
        numbers = {k: array_of(group[k]) if isinstance(group[k], Tensor) else number(group, k) for k in self.numbers if k in group}
        if mode.watcher is None:
            numbers |= {k: tuple(group[k]) for k in self.pairs if k in group}
            if getattr(type(self).update, "is_entrywise", False) and self._joined[which].step(type(self), key, params, states, numbers):
                return
        program = self._programs.get(key)
        if program is None:
            def run(values: Arrays, grads: Arrays, states: list[State], numbers: State) -> tuple[Arrays, list[State]]:
                settings = {**dict(key), **numbers}
                results = [updated(self, p, g, s, settings) for p, g, s in zip(values, grads, states, strict=True)]
                return [r[0].astype(p.dtype) for r, p in zip(results, values, strict=True)], [r[1] for r in results]

            program = self._programs.keep(key, TreeEvaluation(promoting(run)))
        values, new = program([array_of(p) for p in params], [array_of(p._grad) for p in params],
                              [{k: array_of(x) for k, x in s.items()} for s in states], numbers)
        for p, value, state, fresh in zip(params, values, states, new, strict=True):
            write(p, value)
            for name, x in fresh.items():
                write(state[name], x)

    # --------------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, with parameters as numbers."""
        order = {id(p): i for i, p in enumerate([p for g in self.param_groups for p in g["params"]])}
        groups = [{**{k: v for k, v in g.items() if k != "params"}, "params": [order[id(p)] for p in g["params"]]}
                  for g in self.param_groups]
        return {"state": {order[id(p)]: dict(s) for p, s in self.state.items() if s}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take settings and state of another optimizer of the same parameters.

        Raises:
          ValueError: the groups differ.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(groups, self.param_groups, strict=True)):
            raise ValueError("loaded state dict contains a parameter group that doesn't match the size of optimizer's group")
        for mine, given in zip(self.param_groups, groups, strict=True):
            mine.update({k: v for k, v in given.items() if k != "params"})
        params = [p for g in self.param_groups for p in g["params"]]
        for i, state in state_dict["state"].items():
            mine = self.state[params[i]]
            for name, value in state.items():
                old = mine.get(name)
                if isinstance(value, Tensor) and isinstance(old, Tensor) and old.shape == value.shape and old.dtype == value.dtype:
                    write(old, np.array(array_of(value)))  # compiled steps hold a reference to this tensor
                else:
                    mine[name] = value.detach().clone() if isinstance(value, Tensor) else value
            for name in [n for n in mine if n not in state]:
                del mine[name]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += [*([""] if i else []), f"Parameter Group {i}"]
            lines.extend(f"    {k}: {v}" for k, v in sorted(group.items()) if k != "params")
        return "\n".join([*lines, ")"])


def constant_of(group: Settings, name: str) -> Operand:
    """A setting as an operand."""
    return group[name]


def check_positive(name: str, value: float | Tensor) -> None:
    """Raise PyTorch's error for a setting below zero."""
    if not isinstance(value, Tensor) and value < 0:
        raise ValueError(f"Invalid {name}: {value}")
