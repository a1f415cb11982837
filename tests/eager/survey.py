"""A survey of calls as people write them: each call of ``calls/*.txt`` runs in PyTorch and here, and what comes out is compared.

``python -m tests.eager.survey`` prints the calls that differ, and how many are accepted in each file; words choose files or calls.

What a call gives is compared in structure, shape, dtype and values; its gradients with respect to the floating tensors that it takes as
well; and for a refusal the class of the error and its first line.
"""

from __future__ import annotations

import collections
import pathlib
import sys
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np

from dualrev import eager

#: Words of PyTorch's errors about derivatives that it lacks, where a result is no fault.
LACKS = ("not implemented", "returned an invalid gradient", "unresolved conjugated tensors", "not computed when mode='r'",
         "must match the size of tensor b (2) at non-singleton dimension 1", "output 0 of AsStrided")
FOLDER = pathlib.Path(__file__).parent / "calls"


def calls(name: str) -> list[str]:
    """The calls of a file."""
    return [line for line in (FOLDER / f"{name}.txt").read_text().splitlines() if line and line[0] != "#"]


def _wave(t: Any, *shape: int, phase: float = 0.0) -> Any:
    n = np.arange(int(np.prod(shape)))
    return t.tensor((np.sin(n * 1.7 + phase) + 0.4 * np.cos(n * n * 0.3 + phase)).reshape(shape).astype(np.float32))


def given(t: Any, grad: bool) -> tuple[dict[str, Any], list[Any]]:
    """What calls find: tensors by one letter, the library, helpers; and the leaves that require grad."""
    m = _wave(t, 3, 3, phase=0.3) + 2 * t.eye(3)
    floats = dict(x=_wave(t, 3, 4), y=_wave(t, 3, 4, phase=0.9), v=_wave(t, 4, phase=0.4), w=_wave(t, 4, phase=2.4), m=m,
                  b=_wave(t, 2, 3, 3, phase=1.1), p=_wave(t, 3, 4, phase=0.2).abs() + 0.3, u=_wave(t, 3, 4, phase=0.5) * 0.3 + 0.5,
                  img=_wave(t, 2, 3, 8, 8), seq=_wave(t, 2, 3, 10), z=t.tensor(0.7))
    leaves = [a.requires_grad_(grad) for a in floats.values()]
    # Not leaves themselves: they may be changed in place.
    found = {name: a.clone() if grad else a for name, a in floats.items()}
    found["spd"] = found["m"] @ found["m"].T + t.eye(3)
    found["c"] = t.complex(found["m"], found["b"][0])
    found.update(i=t.arange(12).reshape(3, 4) % 5, k=_wave(t, 3, 4, phase=0.7) > 0, idx=t.tensor([0, 2]), t=t.tensor([1, 0, 3]),
                 o=t.empty(3, 4), torch=t, nn=t.nn, F=t.nn.functional, OrderedDict=OrderedDict)
    found.update(fill=lambda model: _filled(t, model), descend=lambda kind, **options: _descent(t, kind, options),
                 rates=lambda make: _rates(t, make))
    return found, leaves


def _filled(t: Any, model: Any) -> Any:
    with t.no_grad():
        for k, a in enumerate(model.parameters()):
            a.copy_((t.arange(float(a.numel())).reshape(a.shape) * 0.37 + k).sin())
    return model


def _descent(t: Any, kind: Any, options: dict[str, Any]) -> Any:
    """Three steps of an optimizer."""
    a = t.nn.Parameter(_wave(t, 3, 2))
    optimizer = kind([a], **options)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = ((a - 1) ** 2).sum() + a.prod()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return [a.detach(), sorted(optimizer.state_dict()["param_groups"][0])]


def _rates(t: Any, make: Any) -> list[float]:
    """The learning rates of a schedule."""
    optimizer = t.optim.SGD([t.nn.Parameter(_wave(t, 2))], lr=0.1, momentum=0.9)
    schedule = make(optimizer)
    found = []
    for _ in range(6):
        optimizer.step()
        schedule.step()
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def leaves_of(x: Any) -> list[Any]:
    """The tensors in a result."""
    if hasattr(x, "detach"):
        return [x]
    if isinstance(x, dict):
        return [leaf for part in x.values() for leaf in leaves_of(part)]
    return [leaf for part in x for leaf in leaves_of(part)] if isinstance(x, (list, tuple)) else []


def outcome(t: Any, call: str, grad: bool) -> tuple[str, Any]:
    """What a call gives: ``("result", [result, gradients])`` or ``("error", (class, first line))``."""
    names, leaves = given(t, grad)
    t.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = eval(call, names)
            if not grad:
                return "result", [result]
            total = 0.0
            for k, out in enumerate(leaves_of(result)):
                if out.requires_grad and out.numel():
                    real = t.view_as_real(out) if out.is_complex() else out
                    weights = t.cos(t.arange(real.numel(), dtype=real.dtype) + k).reshape(real.shape)
                    total = total + (real * weights).sum()
            if isinstance(total, float):
                return "result", []
            total.backward()
            return "result", [a.grad for a in leaves]
    except Exception as error:
        return "error", (type(error).__name__, str(error).splitlines()[0] if str(error) else "")


def difference(ours: Any, theirs: Any, where: str = "") -> str:
    """How two results differ, in words; empty where they don't."""
    if hasattr(theirs, "detach"):
        if ours is None and not np.any(np.asarray(theirs.detach())):
            return ""  # a gradient of zeros may be none
        if not hasattr(ours, "detach"):
            return f"{where} is {ours!r}, no tensor"
        if tuple(ours.shape) != tuple(theirs.shape) or str(ours.dtype) != str(theirs.dtype):
            return f"{where} is {ours.dtype}{list(ours.shape)}, not {theirs.dtype}{list(theirs.shape)}"
        a, b = [np.asarray(x.detach().resolve_conj().to(x.dtype if x.dtype != lib.bfloat16 else lib.float32).numpy())
                for x, lib in ((ours, eager), (theirs, sys.modules["torch"]))]
        tolerance = 1e-3 if str(theirs.dtype) in ("torch.bfloat16", "torch.float16") else 2e-4
        return "" if np.allclose(a, b, tolerance, tolerance, equal_nan=True) else f"{where} is {a.ravel()[:6]}, not {b.ravel()[:6]}"
    if isinstance(theirs, (list, tuple)):
        if not isinstance(ours, (list, tuple)) or len(ours) != len(theirs):
            return f"{where} is {type(ours).__name__} of {len(ours) if hasattr(ours, '__len__') else '?'}, not of {len(theirs)}"
        if isinstance(theirs, tuple) and not isinstance(ours, tuple):
            return f"{where} is a list, not a tuple"
        return next((d for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if (d := difference(a, b, f"{where}[{k}]"))), "")
    if isinstance(theirs, dict):
        return difference(list(ours.items()), list(theirs.items()), where) if isinstance(ours, dict) else f"{where} is no dict"
    if isinstance(theirs, float):
        is_close = isinstance(ours, (int, float)) and bool(np.isclose(ours, theirs, 1e-4, 1e-4, equal_nan=True))
        return "" if is_close else f"{where} is {ours!r}, not {theirs!r}"
    if type(theirs).__module__.partition(".")[0] in ("torch",) or callable(theirs):
        return "" if str(ours) == str(theirs) or type(ours).__name__ == type(theirs).__name__ else f"{where} is {ours}, not {theirs}"
    if isinstance(theirs, np.ndarray):
        is_close = isinstance(ours, np.ndarray) and ours.dtype == theirs.dtype and np.allclose(ours, theirs, 1e-4)
        return "" if is_close else f"{where} is {ours!r}, not {theirs!r}"
    if hasattr(ours, "detach"):
        return f"{where} is a tensor, not {theirs!r}"
    return "" if repr(ours) == repr(theirs) or ours == theirs else f"{where} is {ours!r}, not {theirs!r}"


def verdict(call: str) -> str:
    """How a call differs from PyTorch's, in words; empty where it does not."""
    import torch

    for grad in (False, True):
        kind, theirs = outcome(torch, call, grad)
        ours_kind, ours = outcome(eager, call, grad)
        what = "gradients" if grad else "value"
        if kind == "error" and ours_kind == "result" and any(words in theirs[1] for words in LACKS):
            continue
        if kind != ours_kind:
            shown = [x if k == "error" else "a result" for k, x in ((ours_kind, ours), (kind, theirs))]
            return f"{what}: gives {shown[0]}, not {shown[1]}"[:400]
        if kind == "error":
            if ours != theirs:
                return f"{what}: {ours[0]}: {ours[1]}\n      not {theirs[0]}: {theirs[1]}"
        elif found := difference(ours, theirs):
            return f"{what}{found}"[:400]
    return ""


def main() -> None:
    words = sys.argv[1:]
    counts: collections.Counter[str] = collections.Counter()
    for path in sorted(FOLDER.glob("*.txt")):
        for call in calls(path.stem):
            if words and path.stem not in words and not any(word in call for word in words):
                continue
            found = verdict(call)
            counts[path.stem] += 1
            counts[f"{path.stem} accepted"] += not found
            if found:
                print(f"{call}\n      {found}", flush=True)
    print(", ".join(f"{name} {counts[f'{name} accepted']} of {counts[name]}" for name in counts if " " not in name))


if __name__ == "__main__":
    main()
