"""The base class of schedules: epochs, rates, state."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

from dualrev.eager.core.modes import mode, no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.optim.optimizer import Optimizer

#: A rate, as a group of parameters holds it.
Rate: TypeAlias = Any

EPOCH_IS_GIVEN = ("The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
                  "`scheduler.step()` to step the scheduler. During the deprecation, if epoch is different from None, the closed form "
                  "is used instead of the new chainable form, where available.")


def copied(x: Any) -> Any:
    """A copy of a tensor; other values are returned as they are."""
    return x.detach().clone() if isinstance(x, Tensor) else x


def settings_of(optimizer: Optimizer, name: str) -> list[Any]:
    """A setting of each group."""
    return [copied(group[name]) for group in optimizer.param_groups]


def set_rate(group: dict[str, Any], rate: Rate) -> None:
    """Give a group a rate; a rate in a tensor is changed in place."""
    if isinstance(group["lr"], Tensor):
        with no_grad():
            group["lr"].fill_(float(rate))
    else:
        group["lr"] = rate


def for_each_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """A value for each group, from one for all or a list.

    Raises:
      ValueError: the list has another length.
    """
    if not isinstance(value, (list, tuple)):
        value = [value] * len(optimizer.param_groups)
    elif len(value) != len(optimizer.param_groups):
        raise ValueError(f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} values, param_groups "
                         f"has {len(optimizer.param_groups)}.")
    return [copied(x) for x in value]


def check_optimizer(optimizer: object) -> None:
    """Refuse what is not an optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


class LRScheduler:
    """Base class of schedules: a subclass defines ``get_lr``, the rates of epoch ``last_epoch``.

    >>> from dualrev import eager as torch
    >>> optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.5)
    >>> class Half(torch.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [base * 0.5 ** self.last_epoch for base in self.base_lrs]
    >>> schedule = Half(optimizer)
    >>> optimizer.step()
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    _get_lr_called_within_step = False
    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with last_epoch >= "
                               "0.\nload the state of the optimizer first")
        self.base_lrs: list[Rate] = settings_of(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the rates and the settings."""
        return {k: v for k, v in vars(self).items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state of another schedule."""
        vars(self).update(state_dict)

    def get_last_lr(self) -> list[Rate]:
        """The rates that the last step set."""
        return self._last_lr

    def get_lr(self) -> list[Rate]:
        """The rates of epoch ``last_epoch``, from those that the groups have now."""
        raise NotImplementedError

    def _get_closed_form_lr(self) -> list[Rate]:
        """The rates of an epoch that was given, from the first ones."""
        return self.get_lr()

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next epoch.

        Raises:
          RuntimeError: inside a step that is being compiled.
        """
        check_outside(self)
        if self._step_count == 1 and not self.optimizer._stepped:
            warnings.warn("Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you should "
                          "call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`.  Failure to do this will "
                          "result in PyTorch skipping the first value of the learning rate schedule.", UserWarning, stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_IS_GIVEN, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            rates = self.get_lr() if epoch is None else self._get_closed_form_lr()
        finally:
            self._get_lr_called_within_step = False
        self._set(rates)

    def _set(self, rates: Sequence[Rate]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, rate)
        self._last_lr = settings_of(self.optimizer, "lr")

    def _rates(self) -> list[Rate]:
        """The present rates; PyTorch's warning where a user asks ``get_lr``."""
        if not self._get_lr_called_within_step:
            warnings.warn("To get the last learning rate computed by the scheduler, please use `get_last_lr()`.", UserWarning,
                          stacklevel=3)
        return settings_of(self.optimizer, "lr")


def check_outside(scheduler: object) -> None:
    """Refuse to change rates inside a step that is being compiled."""
    if mode.watcher is not None:
        raise RuntimeError(f"{type(scheduler).__name__}.step() inside a compiled step: when the program runs, Python does not, and the "
                           "rate would stay as it is\ncall it outside, after the step: the program reads the rate at each call")
