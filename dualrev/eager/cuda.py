"""Queries about GPUs: ``torch.cuda`` and ``torch.accelerator``."""

from __future__ import annotations

from typing import Any

import jax

from dualrev.eager.core.annotations import Device
from dualrev.eager.core.dtypes import device, jax_device
from dualrev.eager.ops.sampling import manual_seed as manual_seed
from dualrev.eager.ops.sampling import manual_seed as manual_seed_all  # noqa: F401

#: ``torch.cuda.amp``: set by ``dualrev.eager.amp``.
amp: Any = None


def _devices() -> list[jax.Device]:
    try:
        return list(jax.devices("gpu"))
    except RuntimeError:  # jax has no such device
        return []


def is_available() -> bool:
    """Whether jax drives a GPU.

    >>> from dualrev import eager as torch
    >>> x = torch.ones(2, device="cuda" if torch.cuda.is_available() else "cpu")
    """
    return bool(_devices())


def device_count() -> int:
    """The number of GPUs that jax drives."""
    return len(_devices())


def current_device() -> int:
    """The number of the GPU that ``"cuda"`` means."""
    return jax_device("cuda").id


def get_device_name(device: Device | None = None) -> str:
    """The name of a GPU."""
    return jax_device("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device).device_kind


def synchronize(device: Device | None = None) -> None:
    """Wait until all arrays have been computed."""
    for x in jax.live_arrays():
        x.block_until_ready()


def empty_cache() -> None:
    """Nothing: for compatibility."""


class accelerator:
    """``torch.accelerator``: the GPU, if there is one."""

    is_available = staticmethod(is_available)
    device_count = staticmethod(device_count)
    synchronize = staticmethod(synchronize)

    @staticmethod
    def current_accelerator(check_available: bool = False) -> device | None:
        """The device to compute on, or None."""
        return device("cuda") if is_available() else None
