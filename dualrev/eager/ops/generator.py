"""Sources of random numbers."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core import dtypes
from dualrev.eager.core.caches import caches
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of, wrap


class Generator:
    """A source of random numbers: a key that each draw replaces."""

    def __init__(self, device: Any = "cpu"):
        self.device = dtypes.device(device)
        self._state: Tensor | None = None
        self._seed = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start from a seed."""
        self._seed = int(seed)
        if self._state is not None:
            with jax.ensure_compile_time_eval():
                write(self._state, jax.random.PRNGKey(self._seed))  # compiled steps hold a reference to this tensor
        return self

    def initial_seed(self) -> int:
        """The seed that it started from."""
        return self._seed

    def seed(self) -> int:
        """Start from a seed that the system draws, and return it."""
        drawn = int.from_bytes(os.urandom(4), "little")
        self.manual_seed(drawn)
        return drawn

    def get_state(self) -> Tensor:
        """The state as bytes."""
        return wrap(lax.bitcast_convert_type(array_of(self.state()), jnp.uint8).ravel())

    def set_state(self, new_state: Tensor) -> None:
        """Continue from a state of this source or another one."""
        array = array_of(new_state)
        if array.dtype != jnp.uint8 or array.shape != (8,):
            raise TypeError(f"expected the 8 bytes of a get_state(), got {array.dtype}{list(array.shape)}\n"
                            "the states of PyTorch's generators are others")
        write(self.state(), lax.bitcast_convert_type(array.reshape(2, 4), jnp.uint32))

    def state(self) -> Tensor:
        """The key that the next draw splits, as a tensor."""
        if self._state is None:
            with jax.ensure_compile_time_eval():
                self._state = wrap(jax.random.PRNGKey(self._seed))
        return self._state

    def key(self) -> Any:
        """A new key; under ``vmap``, one for all examples or one for each, by its ``randomness``."""
        for randomness, _ in mode.examples:
            if randomness == "error":
                raise RuntimeError("vmap: called random operation while in randomness error mode. Please either use the 'same' or "
                                   "'different' randomness flags on vmap or perform the randomness operation out of vmap")
        kept = self.state()
        state, key = _split(array_of(kept))
        write(kept, state)
        for randomness, example in mode.examples:
            if randomness == "different" and example is not None:
                key = jax.random.fold_in(key, example)
        return key


_split = caches.jit(lambda state: tuple(jax.random.split(state)), inline=True)
#: The source of random numbers where none is given.
default_generator = Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
