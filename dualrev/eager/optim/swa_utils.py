"""Averages of the parameters that training passes through: ``torch.optim.swa_utils``."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from dualrev.eager.core.annotations import Device
from dualrev.eager.core.modes import no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.module import Module
from dualrev.eager.nn.modules.normalization import _BatchNorm
from dualrev.eager.ops.creation import tensor
from dualrev.eager.optim.lr_scheduler.base import LRScheduler, Rate, for_each_group
from dualrev.eager.optim.optimizer import Optimizer

#: The new average from the old one, the present value, and the number of values in the old one.
Average: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]
#: Changes a list of averages in place.
Averages: TypeAlias = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average of one parameter."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return decay * ema_param + (1 - decay) * current_param

    return ema_update


def get_swa_avg_fn() -> Average:
    """The mean of one parameter."""
    @no_grad()
    def swa_update(averaged_param: Tensor, current_param: Tensor, num_averaged: Any) -> Tensor:
        return averaged_param + (current_param - averaged_param) / (num_averaged + 1)

    return swa_update


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averages:
    """The exponential moving averages of a list of parameters, in place."""
    _check_decay(decay)

    @no_grad()
    def ema_update(ema_param_list: Sequence[Tensor], current_param_list: Sequence[Tensor], num_averaged: Any) -> None:
        for average, value in zip(ema_param_list, current_param_list, strict=True):
            average.copy_(average.lerp(value, 1 - decay) if average.is_floating_point() or average.is_complex()
                          else average * decay + value * (1 - decay))

    return ema_update


def get_swa_multi_avg_fn() -> Averages:
    """The means of a list of parameters, in place."""
    @no_grad()
    def swa_update(averaged_param_list: Sequence[Tensor], current_param_list: Sequence[Tensor], num_averaged: Any) -> None:
        share = 1 / (float(num_averaged) + 1)
        for average, value in zip(averaged_param_list, current_param_list, strict=True):
            average.copy_(average.lerp(value, share) if average.is_floating_point() or average.is_complex()
                          else average + (value - average) * share)

    return swa_update


class AveragedModel(Module):
    """A copy of a model with the averages of its parameters.

    Args:
      model: the model that is trained.
      avg_fn: the new average of one parameter; by default the mean.
      multi_avg_fn: changes a list of averages in place; instead of ``avg_fn``.
      use_buffers: average buffers too; otherwise they are copied.

    >>> from dualrev import eager as torch
    >>> model = torch.nn.Linear(1, 1)
    >>> averaged = torch.optim.swa_utils.AveragedModel(model)
    >>> averaged.update_parameters(model)
    >>> averaged.n_averaged
    tensor(1)
    """

    n_averaged: Tensor

    def __init__(self, model: Module, device: Device | None = None, avg_fn: Average | None = None,
                 multi_avg_fn: Averages | None = None, use_buffers: bool = False):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of the model into the averages."""
        def values(m: Module) -> list[Tensor]:
            return [x.detach() for x in (itertools.chain(m.parameters(), m.buffers()) if self.use_buffers else m.parameters())]

        averages, present, n = values(self.module), values(model), self.n_averaged
        with no_grad():
            if int(n) == 0:
                for average, value in zip(averages, present, strict=True):
                    average.copy_(value)
            elif self.avg_fn is None:
                update = self.multi_avg_fn or get_swa_multi_avg_fn()
                for dtype in dict.fromkeys([x.dtype for x in averages]):
                    pairs = [(a, b) for a, b in zip(averages, present, strict=True) if a.dtype == dtype]
                    update([a for a, _ in pairs], [b for _, b in pairs], n)
            else:
                for average, value in zip(averages, present, strict=True):
                    average.copy_(self.avg_fn(average, value, n))
            if not self.use_buffers:
                for mine, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                    mine.copy_(theirs)
            self.n_averaged += 1


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Device | None = None) -> None:
    """Compute the statistics of batch norms anew, from all batches of a loader."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    training = model.training
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    for batch in loader:
        given = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(given if device is None else given.to(device))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """The rate from that of another schedule to ``swa_lr``, in ``anneal_epochs`` epochs, where it stays."""

    def __init__(self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10, anneal_strategy: str = "cos",
                 last_epoch: int = -1):
        for group, rate in zip(optimizer.param_groups, for_each_group("swa_lr", optimizer, swa_lr), strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._anneal_strategy, self.anneal_epochs = anneal_strategy, anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        t = max(0, min(1, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[Rate]:
        rates = self._rates()
        step = max(1, self._step_count - 1) if self.anneal_epochs == 0 else self._step_count - 1
        before, now = self._share(step - 1), self._share(step)
        ends = [group["swa_lr"] for group in self.optimizer.param_groups]
        first = [end if before == 1 else (rate - before * end) / (1 - before) for rate, end in zip(rates, ends, strict=True)]
        return [end * now + rate * (1 - now) for end, rate in zip(ends, first, strict=True)]
