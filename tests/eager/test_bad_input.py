"""Bad input: what PyTorch refuses is refused, with its class and the first line of its words; below it, both sides and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from against_torch import in_both

from dualrev import eager as torch


def _with_hook(t: Any, hook: Callable[[Any], Any]) -> Any:
    """A leaf with a hook that runs after its gradient was added to."""
    x = t.ones(2, requires_grad=True)
    x.register_post_accumulate_grad_hook(hook)
    return x


REFUSED: dict[str, Callable[[Any], Any]] = {
    "mm dtype": lambda t: t.ones(2, 2) @ t.ones(2, 2, dtype=t.float64),
    "linear dtype": lambda t: t.nn.Linear(2, 2)(t.ones(1, 2, dtype=t.float64)),
    "linear shape": lambda t: t.nn.Linear(2, 2)(t.ones(1, 3)),
    "conv dtype": lambda t: t.nn.Conv2d(1, 1, 1)(t.ones(1, 1, 2, 2, dtype=t.float64)),
    "conv dim": lambda t: t.nn.Conv2d(1, 1, 1)(t.ones(2, 2)),
    "conv chan": lambda t: t.nn.Conv2d(1, 1, 1)(t.ones(1, 2, 2, 2)),
    "conv kernel": lambda t: t.nn.Conv2d(1, 1, 3)(t.ones(1, 1, 2, 2)),
    "bn dim": lambda t: t.nn.BatchNorm2d(1)(t.ones(2, 2)),
    "bn chan": lambda t: t.nn.BatchNorm2d(3)(t.ones(2, 2, 2, 2)),
    "ln": lambda t: t.nn.LayerNorm(3)(t.ones(2, 2)),
    "ce range": lambda t: t.nn.CrossEntropyLoss()(t.ones(2, 3), t.tensor([0, 5])),
    "ce dtype": lambda t: t.nn.CrossEntropyLoss()(t.ones(2, 3), t.tensor([0, 1], dtype=t.int32)),
    "ce batch": lambda t: t.nn.CrossEntropyLoss()(t.ones(2, 3), t.tensor([0, 1, 1])),
    "nll": lambda t: t.nn.NLLLoss()(t.ones(2, 3), t.tensor([0, 1, 1])),
    "nll float": lambda t: t.nn.NLLLoss()(t.ones(2, 3), t.ones(2)),
    "mse": lambda t: t.nn.MSELoss()(t.ones(2, 3), t.ones(4, 3)),
    "bce": lambda t: t.nn.BCELoss()(t.ones(2, 3), t.ones(2)),
    "bcel": lambda t: t.nn.BCEWithLogitsLoss()(t.ones(2, 3), t.ones(2)),
    "embedding": lambda t: t.nn.Embedding(3, 2)(t.tensor([3])),
    "embedding f": lambda t: t.nn.Embedding(3, 2)(t.ones(2)),
    "one_hot": lambda t: t.nn.functional.one_hot(t.tensor([3]), 2),
    "cat": lambda t: t.cat([t.ones(2, 2), t.ones(3, 3)]),
    "cat0": lambda t: t.cat([]),
    "stack0": lambda t: t.stack([]),
    "reshape": lambda t: t.ones(2, 3).reshape(4),
    "view-1": lambda t: t.ones(2, 3).view(-1, -1),
    "expand": lambda t: t.ones(2, 3).expand(2, 4),
    "squeeze": lambda t: t.ones(2).squeeze(3),
    "transpose": lambda t: t.ones(2).transpose(0, 1),
    "permute": lambda t: t.ones(2, 3).permute(0),
    "t": lambda t: t.ones(2, 3, 4).t(),
    "index": lambda t: t.ones(2, 3)[2],
    "index2": lambda t: t.ones(2, 3)[0, 0, 0],
    "index t": lambda t: t.ones(2, 3)[t.tensor([5])],
    "index mask": lambda t: t.ones(2, 3)[t.ones(3, dtype=t.bool)],
    "index float": lambda t: t.ones(2, 3)[t.ones(3)],
    "gather": lambda t: t.gather(t.ones(2, 3), 1, t.tensor([[4]])),
    "gather dim": lambda t: t.gather(t.ones(2, 3), 1, t.tensor([0])),
    "scatter": lambda t: t.zeros(2, 3).scatter_(1, t.tensor([[7]]), t.ones(1, 1)),
    "item": lambda t: t.ones(2).item(),
    "float": lambda t: float(t.ones(2)),
    "max empty": lambda t: t.ones(0).max(),
    "argmax empty": lambda t: t.ones(0).argmax(),
    "mean int": lambda t: t.ones(2, dtype=t.int64).mean(),
    "iadd": lambda t: t.ones(2).add_(t.ones(3)),
    "iadd bigger": lambda t: t.ones(2).add_(t.ones(3, 2)),
    "idtype": lambda t: t.ones(2, dtype=t.int64).add_(1.5),
    "backward none": lambda t: t.ones(1).backward(),
    "backward ns": lambda t: t.ones(2, requires_grad=True).mul(2).backward(),
    "grad unused": lambda t: t.autograd.grad(t.ones(1, requires_grad=True).sum(), t.ones(1, requires_grad=True)),
    "grad non": lambda t: t.autograd.grad(t.ones(1, requires_grad=True).sum(), t.ones(1)),
    "grad shape": lambda t: t.ones(2, requires_grad=True).mul(2).backward(t.ones(3)),
    "grad assign": lambda t: setattr(t.ones(2, requires_grad=True), "grad", t.ones(3)),
    "numpy": lambda t: t.ones(2, requires_grad=True).numpy(),
    "rg int": lambda t: t.tensor([1, 2], requires_grad=True),
    "leaf inplace": lambda t: t.ones(2, requires_grad=True).add_(1),
    "leaf view": lambda t: t.ones(2, requires_grad=True)[0].add_(1),
    "post accumulate hook": lambda t: _with_hook(t, lambda p: p.grad).sum().backward(),
    "setitem leaf": lambda t: t.ones(2, requires_grad=True).__setitem__(0, 1.0),
    "opt empty": lambda t: t.optim.SGD([], lr=0.1),
    "opt lr": lambda t: t.optim.Adam([t.ones(1, requires_grad=True)], lr=-1),
    "opt betas": lambda t: t.optim.Adam([t.ones(1, requires_grad=True)], betas=(1.5, 0.9)),
    "opt nesterov": lambda t: t.optim.SGD([t.ones(1, requires_grad=True)], lr=0.1, nesterov=True),
    "opt nonleaf": lambda t: t.optim.SGD([t.ones(1, requires_grad=True) * 2], lr=0.1),
    "opt tensor": lambda t: t.optim.SGD(t.ones(1, requires_grad=True), lr=0.1),
    "module attr": lambda t: t.nn.Linear(1, 1).foo,
    "module fwd": lambda t: t.nn.Module()(1),
    "module assign": lambda t: setattr(t.nn.Linear(1, 1), "weight", 3),
    "tensor ragged": lambda t: t.tensor([[1, 2], [3]]),
    "tensor str": lambda t: t.tensor("a"),
    "ones neg": lambda t: t.ones(-1),
    "arange": lambda t: t.arange(1, 0, 1),
    "linspace": lambda t: t.linspace(0, 1, -1),
    "dropout": lambda t: t.nn.Dropout(1.5),
    "dot": lambda t: t.dot(t.ones(2), t.ones(3)),
    "dot2": lambda t: t.dot(t.ones(2, 2), t.ones(3)),
    "mv": lambda t: t.mv(t.ones(2, 2), t.ones(3)),
    "bmm": lambda t: t.bmm(t.ones(2, 2, 2), t.ones(3, 2, 2)),
    "bmm2": lambda t: t.bmm(t.ones(2, 2), t.ones(3, 2, 2)),
    "matmul b": lambda t: t.ones(2, 3, 4) @ t.ones(2, 5, 6),
    "einsum": lambda t: t.einsum("ij, jk->ik", t.ones(2, 3), t.ones(4, 5)),
    "maxpool": lambda t: t.nn.functional.max_pool2d(t.ones(1, 1, 2, 2), 3),
    "split": lambda t: t.ones(4).split([1, 2]),
    "where": lambda t: t.where(t.ones(2) > 0, t.ones(2), t.ones(3)),
    "clamp": lambda t: t.ones(2).clamp(),
    "norm int": lambda t: t.ones(2, dtype=t.int64).norm(),
    "inverse ns": lambda t: t.inverse(t.zeros(2, 3)),
    "load shape": lambda t: t.nn.Linear(2, 2).load_state_dict({"weight":t.ones(3, 3), "bias":t.ones(2)}),
    "mha": lambda t: t.nn.MultiheadAttention(3, 2),
    "convgroups": lambda t: t.nn.Conv2d(3, 2, 1, groups=2),
    "seq idx": lambda t: t.nn.Sequential(t.nn.ReLU())[3],
    "hook": lambda t: t.ones(1).register_hook(print),
    "retain": lambda t: t.ones(1).retain_grad(),
    "sched": lambda t: t.optim.lr_scheduler.StepLR(3, 1),
    "step closure": lambda t: t.optim.SGD([t.ones(1, requires_grad=True)], lr=.1).load_state_dict({"state":{}, "param_groups":[]}),
}


def refusal(fun: Callable[[Any], Any], t: Any) -> tuple[str, str]:
    """The class and the first line of the error."""
    with pytest.raises(Exception) as caught:
        fun(t)
    return type(caught.value).__name__, str(caught.value).splitlines()[0]


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_as_pytorch_does(name: str) -> None:
    in_both(lambda t: refusal(REFUSED[name], t))


@pytest.mark.parametrize(("fun", "words"), [
    (lambda: torch.ones(2, 3) + torch.ones(2, 4), "[2, 3] and [2, 4]"),
    (lambda: torch.cat([torch.ones(2, 2), torch.ones(3, 3)]), "[3, 3]"),
    (lambda: torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.float64), "x.to(y.dtype)"),
    (lambda: torch.nn.CrossEntropyLoss()(torch.ones(2, 3), torch.tensor([0, 5])), "3 classes, from 0 to 2"),
    (lambda: torch.nn.Embedding(3, 2)(torch.tensor([0, -1])), "index -1 of a table of 3 rows"),
    (lambda: setattr(torch.ones(2, requires_grad=True), "grad", torch.ones(3)), "shape [2], made at"),
])
def test_bad_input_is_told_with_both_sides_and_what_to_do(fun: Callable[[], Any], words: str) -> None:
    with pytest.raises((RuntimeError, IndexError)) as caught:
        fun()
    assert words in "\n".join(str(caught.value).splitlines()[1:])


@pytest.mark.parametrize("fun", [
    lambda: torch.ones(1).cuda(), lambda: torch.ones(1, device="cuda"), lambda: torch.ones(1).to("cuda:0"),
    lambda: torch.nn.Linear(1, 1).cuda(), lambda: torch.nn.Linear(1, 1).to("cuda"), lambda: torch.ones(1).to(torch.device("cuda"))])
def test_bad_input_without_a_gpu(fun: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match=r"No CUDA GPUs are available\nthis process has .*leave out .cuda\(\)"):
        fun()
    assert not torch.cuda.is_available() and torch.cuda.device_count() == 0


def test_bad_input_ignored_classes_are_not_looked_at() -> None:
    def program(t: Any) -> list[Any]:
        x = t.arange(6.0).reshape(2, 3)
        return [t.nn.functional.cross_entropy(x, t.tensor([1, -100])),
                t.nn.functional.cross_entropy(x, t.tensor([1, 7]), ignore_index=7),
                t.cat([t.ones(0), x]), x.expand(4, -1, -1), x[t.tensor([-2, 1])]]

    in_both(program)
