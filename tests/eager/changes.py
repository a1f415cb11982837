"""Values that are changed in place between forward and backward: which of them both libraries refuse, for each call of the survey.

``PYTHONPATH=tests/eager python -m changes`` prints the calls that differ; words choose files or calls.
"""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any

import survey

from dualrev import eager

#: The names of tensors in calls.
OPERANDS = ("x", "y", "v", "w", "m", "b", "p", "u", "img", "seq", "z", "spd", "c", "i", "k", "idx", "t")
#: What backward says; anything else is a difference of the call itself, which the survey finds.
ANSWERS = ("refused", "accepted")
REFUSAL = "modified by an inplace operation"
#: The files whose calls are differentiated.
FILES = ("functions", "linalg", "methods", "networks")


def _changes(t: Any, call: str, changed: str) -> str:
    """What backward says after an operand, or a result by number, was written to: one of ``ANSWERS``, or an error."""
    names, leaves = survey.given(t, True)
    t.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = survey.leaves_of(eval(call, names))
            total: Any = 0.0
            for out in results:
                if out.requires_grad and out.numel():
                    real = t.view_as_real(out) if out.is_complex() else out
                    total = total + real.sum()
            if isinstance(total, float):
                return "no graph"
            a = results[int(changed)] if changed.isdigit() else names[changed]
            with t.no_grad():
                a.copy_(a.clone())
            t.autograd.grad(total, leaves, allow_unused=True)
    except Exception as error:
        return "refused" if REFUSAL in str(error) else f"{type(error).__name__}"
    return "accepted"


def changeable(t: Any, call: str) -> list[str]:
    """The operands and, by number, the results of a call that can be changed in place."""
    names, _ = survey.given(t, True)
    t.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = survey.leaves_of(eval(call, names))
    except Exception:
        return []
    used = [name for name in OPERANDS if re.search(rf"(?<![\w.\"'])({name})(?![\w\"'(=])", call)]
    return [*used, *[str(k) for k in range(len(results))]] if any(out.requires_grad for out in results) else []


def differences(call: str) -> list[tuple[str, str, str]]:
    """``(what is changed, what we say, what PyTorch says)`` where these differ."""
    import torch

    found = []
    for changed in changeable(torch, call):
        theirs = _changes(torch, call, changed)
        if theirs in ANSWERS and (ours := _changes(eager, call, changed)) in ANSWERS and ours != theirs:
            found.append((changed, ours, theirs))
    return found


def known() -> dict[tuple[str, str], str]:
    """The differences that remain, ``(call, what is changed)``, with their reasons; ``calls/changes.lst`` lists them."""
    lines = [line.split(" | ") for line in (survey.FOLDER / "changes.lst").read_text().splitlines()]
    return {(call, changed): reason for call, places, reason in lines for changed in places.split()}


def main() -> None:
    words = sys.argv[1:]
    count = 0
    for name in FILES:
        for call in survey.calls(name):
            if words and name not in words and not any(word in call for word in words):
                continue
            count += 1
            for changed, ours, theirs in differences(call):
                print(f"{call} | {changed} | {ours}, not {theirs}", flush=True)
    print(f"{count} calls")


if __name__ == "__main__":
    main()
