"""The random numbers of the process: ``torch.random``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from dualrev.eager.ops.generator import default_generator as default_generator
from dualrev.eager.ops.sampling import get_rng_state as get_rng_state
from dualrev.eager.ops.sampling import initial_seed as initial_seed
from dualrev.eager.ops.sampling import manual_seed as manual_seed
from dualrev.eager.ops.sampling import seed as seed
from dualrev.eager.ops.sampling import set_rng_state as set_rng_state


@contextlib.contextmanager
def fork_rng(devices: Iterable[int] | None = None, enabled: bool = True, _caller: str = "fork_rng", _devices_kw: str = "devices",
             device_type: str | None = None) -> Iterator[None]:
    """A block after which the random numbers of the process go on as if nothing had been drawn inside.

    >>> from dualrev import eager as torch
    >>> _ = torch.manual_seed(0)
    >>> with torch.random.fork_rng():
    ...     a = torch.rand(2)
    >>> bool((torch.rand(2) == a).all())
    True
    """
    if not enabled:
        yield
        return
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
