"""Calls as people write them, in both libraries: values, dtypes, gradients, refusals, and dtypes under autocast."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import survey

from dualrev import eager

torch = pytest.importorskip("torch", reason="compared with PyTorch")

#: Calls that differ, and why; ``python -m tests.eager.survey`` lists them.
KNOWN = {line.partition("  # ")[0]: line.partition("  # ")[2] for line in (survey.FOLDER / "known.lst").read_text().splitlines()}
GROUPS = [(path.stem, k) for path in sorted(survey.FOLDER.glob("*.txt")) for k in range(0, len(survey.calls(path.stem)), 40)]
#: What the default run samples.
SAMPLE = (("methods", 200),)


@pytest.mark.parametrize(("name", "start"), [g if g in SAMPLE else pytest.param(*g, marks=pytest.mark.thorough) for g in GROUPS])
def test_calls_are_pytorchs(name: str, start: int) -> None:
    found = {call: survey.verdict(call) for call in survey.calls(name)[start: start + 40]}
    wrong = {call: words for call, words in found.items() if words and call not in KNOWN}
    assert not wrong, "\n".join(f"{call}\n      {words}" for call, words in wrong.items())


def test_known_differences_are_calls_with_reasons() -> None:
    every = {call for path in survey.FOLDER.glob("*.txt") for call in survey.calls(path.stem)}
    assert sum(len(survey.calls(path.stem)) for path in survey.FOLDER.glob("*.txt")) > 1900
    assert set(KNOWN) <= every
    assert all(KNOWN.values())


def _dtypes(t: Any, call: str, narrow: bool) -> object:
    """The dtypes of what a call gives under autocast, of float32 or narrower tensors; or that it is refused."""
    names, _ = survey.given(t, False)
    if narrow:
        names.update({k: x.to(t.bfloat16) for k, x in names.items() if isinstance(x, t.Tensor) and x.is_floating_point()})
    try:
        with warnings.catch_warnings(), t.no_grad(), t.autocast("cpu"):
            warnings.simplefilter("ignore")
            return [str(x.dtype) for x in survey.leaves_of(eval(call, names))]
    except Exception:
        return "refused"


@pytest.mark.thorough
@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["functions", "linalg", "networks"])
def test_autocast_chooses_pytorchs_dtypes(name: str, narrow: bool) -> None:
    wrong = []
    for call in survey.calls(name):
        if call in KNOWN or "nn.utils" in call:
            continue
        theirs = _dtypes(torch, call, narrow)
        if theirs != "refused" and (ours := _dtypes(eager, call, narrow)) != theirs and call not in NARROW:
            wrong.append(f"{call}: {ours}, not {theirs}")
    assert not wrong, "\n".join(wrong)


#: Without a counterpart for 16 bits: jax has none, or the histogram is counted in 32 bits.
NARROW = {"torch.histc(x, bins=4, min=-1, max=1)", "torch.histc(x, 5)", "torch.matrix_exp(m * 0.1)", "torch.linalg.matrix_exp(m * 0.1)",
          "torch.special.ndtr(x)"}
