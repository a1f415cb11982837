"""What PyTorch asks of tensors of other layouts: a tensor here holds every entry, and refuses as a dense one of PyTorch does."""

from __future__ import annotations

from typing import Any, NoReturn

from dualrev.eager.core.annotations import DType
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.registry import method, renamed

#: The layouts that methods are of, in PyTorch's words.
_LAYOUTS = {"coalesce": "sparse coordinate tensor", "is_coalesced": "sparse coordinate tensor", "indices": "sparse coordinate tensor",
            "values": "sparse tensor", "crow_indices": "sparse row compressed tensor", "col_indices": "sparse row compressed tensor",
            "ccol_indices": "sparse column compressed tensor", "row_indices": "sparse column compressed tensor"}


@method
def to_dense(self: Tensor, dtype: DType | None = None, *, masked_grad: bool | None = None) -> Tensor:
    """The tensor itself, which holds every entry; in another dtype where one is given."""
    return self if dtype is None else self.to(dtype)


@method
def dense_dim(self: Tensor) -> int:
    """The number of dimensions in which every entry is held: all."""
    return self.ndim


@method
def sparse_dim(self: Tensor) -> int:
    """The number of dimensions in which only some entries are held: none."""
    return 0


def _refusing(name: str, layout: str) -> Any:
    def refuse(self: Tensor) -> NoReturn:
        raise RuntimeError(f"{name} expected {layout} layout but got Strided\na tensor here holds every entry; .nonzero() gives the "
                           "places of those that are not zero")

    return renamed(refuse, name, f"Refuse: this is a question to a {layout}.")


for _name, _layout in _LAYOUTS.items():
    method(_refusing(_name, _layout))
for _name in ("is_vulkan", "is_maia", "is_mtia"):
    setattr(Tensor, _name, property(lambda self: False, doc="Whether it is on such a device: never."))
