"""Sources of random numbers."""

from __future__ import annotations

import os

import jax
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device
from dualrev.eager.core.evaluation import Evaluation
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of, wrap


class Generator:
    """A source of random numbers: a key that each draw replaces."""

    def __init__(self, device: Device = "cpu"):
        self.device = dtypes.device(device)
        self._state: Tensor | None = None
        self._seed = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start from a seed."""
        self._seed = int(seed)
        if self._state is not None:
            write(self._state, self._start())  # compiled steps hold a reference to this tensor
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
        return wrap(np.asarray(array_of(self.state())).view(np.uint8))

    def set_state(self, new_state: Tensor) -> None:
        """Continue from a state of this source or another one."""
        array = array_of(new_state)
        if array.dtype != np.uint8 or array.shape != (8,):
            raise TypeError(f"expected the 8 bytes of a get_state(), got {array.dtype}{list(array.shape)}\n"
                            "the states of PyTorch's generators are others")
        write(self.state(), np.array(array).view(np.uint32))

    def state(self) -> Tensor:
        """The key that the next draw splits, as a tensor."""
        if mode.random is not None:
            return self._inside()
        if self._state is None:
            self._state = wrap(self._start())
        return self._state

    def _inside(self) -> Tensor:
        """The key inside a function of arrays that is given one.

        Raises:
          RuntimeError: this is another source, whose numbers would be the same in each call.
        """
        if self is not default_generator:
            raise RuntimeError("a function of arrays draws from a torch.Generator of its own\nits numbers would be the same in each "
                               "call of the compiled program; draw from the default source, leaving out generator=")
        given: Tensor = mode.random
        return given

    def _start(self) -> np.ndarray:
        """The key of the seed."""
        return np.array([self._seed >> 32 & 0xFFFFFFFF, self._seed & 0xFFFFFFFF], np.uint32)

    def key(self) -> jax.Array:
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
                key = _fold(key, example)
        return key


def key_from(state: jax.Array) -> jax.Array:
    """A key of jax's from the two words that a source keeps."""
    return jax.random.wrap_key_data(state, impl="threefry2x32")


_split = Evaluation(lambda state: tuple(jax.random.key_data(jax.random.split(key_from(state)))), many=True)
_fold = Evaluation(lambda state, n: jax.random.key_data(jax.random.fold_in(key_from(state), n)))
#: The source of random numbers where none is given.
default_generator = Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
