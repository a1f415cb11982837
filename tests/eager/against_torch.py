"""Programs that run in both libraries."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs.starting import fill as fill

from dualrev import eager


def in_both(program: Callable[[Any], Any], tolerance: float = 1e-5) -> Any:
    """What a program gives with ours, after comparing it with PyTorch's where that is installed.

    With ``EAGER_NEEDS_TORCH`` in the environment, PyTorch has to be.
    """
    ours = program(eager)
    try:
        import torch
    except ImportError:
        if os.environ.get("EAGER_NEEDS_TORCH"):
            raise
        return ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those are PyTorch's own
        theirs = program(torch)
    compare(ours, theirs, tolerance)
    return ours


def compare(ours: Any, theirs: Any, tolerance: float) -> None:
    if isinstance(theirs, (list, tuple)) and not hasattr(theirs, "numel"):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            compare(a, b, tolerance)
    elif hasattr(theirs, "detach"):
        assert tuple(ours.shape) == tuple(theirs.shape)
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(force=True), tolerance, tolerance)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, tolerance, tolerance)
    else:
        assert ours == theirs


def message(fun: Callable[[], Any], kind: type[Exception] = RuntimeError) -> str:
    """The first line of the error."""
    with pytest.raises(kind) as caught:
        fun()
    return str(caught.value).splitlines()[0]
