"""Settings of the process that PyTorch programs make: threads, determinism, precision of products."""

from __future__ import annotations

import os
import warnings
from typing import Any

_settings: dict[str, Any] = {"threads": None, "interop": None, "deterministic": False, "warn_only": False, "precision": "highest",
                             "warn_always": False}


def set_num_threads(n: int) -> None:
    """Note a number of threads: how many jax uses is decided when the process starts.

    Raises:
      RuntimeError: it is not positive.
    """
    if n <= 0:
        raise RuntimeError("set_num_threads expects a positive integer")
    _settings["threads"] = n


def get_num_threads() -> int:
    """The number of threads that was set, or that of processors."""
    return _settings["threads"] or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_interop_threads(n: int) -> None:
    """Note a number of threads; it has no effect."""
    if n <= 0:
        raise RuntimeError("set_num_interop_threads expects a positive integer")
    _settings["interop"] = n


def get_num_interop_threads() -> int:
    """The number of threads that was set, or that of processors."""
    return _settings["interop"] or get_num_threads()


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Note that algorithms must be deterministic: on the CPU they are."""
    _settings.update(deterministic=bool(mode), warn_only=bool(mode) and warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether deterministic algorithms were asked for."""
    return _settings["deterministic"]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether algorithms that are not deterministic should only warn."""
    return _settings["warn_only"]


def set_float32_matmul_precision(precision: str) -> None:
    """Note a precision of products of float32 matrices: they are computed in float32."""
    if precision in ("highest", "high", "medium"):
        _settings["precision"] = precision
    else:
        warnings.warn(f"{precision} is not one of 'highest', 'high', or 'medium'; the current setFloat32MatmulPrecision call has no "
                      "effect.", stacklevel=2)


def get_float32_matmul_precision() -> str:
    """The precision that was set."""
    return _settings["precision"]


_DEBUG_MODES = ("default", "warn", "error")


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """As ``use_deterministic_algorithms``: 0 or "default", 1 or "warn", 2 or "error"."""
    if not isinstance(debug_mode, (int, str)):
        raise TypeError(f"debug_mode must be str or int, but got {type(debug_mode)}")
    if isinstance(debug_mode, str) and debug_mode not in _DEBUG_MODES:
        raise RuntimeError(f"invalid value of debug_mode, expected one of `default`, `warn`, `error`, but got {debug_mode}")
    level = _DEBUG_MODES.index(debug_mode) if isinstance(debug_mode, str) else debug_mode
    if level not in (0, 1, 2):
        raise RuntimeError(f"invalid value of debug_mode, expected 0, 1, or 2, but got {debug_mode}")
    use_deterministic_algorithms(level > 0, warn_only=level == 1)


def get_deterministic_debug_mode() -> int:
    """The level that was set: 0, 1 or 2."""
    return 0 if not _settings["deterministic"] else 1 if _settings["warn_only"] else 2


def set_warn_always(b: bool, /) -> None:
    """Note whether warnings are to come each time: Python's own filters decide."""
    if not isinstance(b, bool):
        raise TypeError(f"setWarnOnlyOnce expects a bool, but got {type(b).__name__}")
    _settings["warn_always"] = b


def is_warn_always_enabled() -> bool:
    """What was set by ``set_warn_always``."""
    return _settings["warn_always"]


def set_flush_denormal(mode: bool) -> bool:
    """Whether numbers below the normal ones can be set to zero by choice: no, compiled programs decide."""
    return False
