"""Errors of the backward pass, in PyTorch's words, with the user's lines."""

from __future__ import annotations

from dualrev._jax.source_lines import line_of
from dualrev.eager.core import dtypes
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.storage import Storage
from dualrev.eager.graph.tensor import Cotangent, Tensor, array_of


def freed_at(node: Node) -> str:
    """The lines that made a node, and that freed its graph."""
    made, freed = node.line(), line_of(node.freed) if node.freed is not None else ""
    return (f"\nthe graph of {node.name()}" + (f", made at {made}," if made else "")
            + (f" was freed by the backward at {freed}" if freed else " was freed") + "; give that one retain_graph=True")


def modified(node: Node, place: int, counter: Storage, version: int) -> str:
    """The refusal of a value that was changed in place: ``place, counter, version`` are an entry of ``node.checks``."""
    is_out = place < 0
    where = ~place if is_out else place
    assert node.record is not None
    array = node.record.out_avals[where] if is_out else node.record.linearization.in_avals[where]
    edge = (node, where) if is_out else node.edges[where]
    producer = edge[0] if edge is not None and isinstance(edge[0], Node) else None
    which = f", which is output {edge[1]} of {producer.op_name.partition(':')[0]}," if producer is not None and edge is not None else ""
    text = (f"one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[torch.{dtypes.type_name(array.dtype)}Tensor {list(array.shape)}]{which} is at version {counter.version}; expected "
            f"version {version} instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, "
            "with torch.autograd.set_detect_anomaly(True, check_nan=False).")
    made = producer.line() if producer is not None else ""
    changed = line_of(counter.changed) if counter.changed is not None else ""
    text += f"\n{node.name()}" + (f", at {node.line()}," if node.line() else "") + " saved it for backward"
    text += f"; it was made at {made}" if made else ""
    text += f"; it was changed at {changed}" if changed else ""
    return text + "; change a .clone() of it instead, or use the operation that is not in place"


def check_hook(hook: object, ct: Cotangent, given: object) -> None:
    """Refuse a hook's result that is no gradient of the same shape and dtype."""
    name = getattr(hook, "__name__", type(hook).__name__)
    if not isinstance(given, Tensor):
        raise TypeError(f"expected Variable, but hook returned '{type(given).__name__}'\na hook returns a tensor or None")
    if tuple(given.shape) != tuple(ct.shape):
        raise RuntimeError(f"hook '{name}' has changed the size of value\nfrom {list(ct.shape)} to {list(given.shape)}")
    was, got = (array_of(x).dtype if isinstance(x, Tensor) else x.dtype for x in (ct, given))
    if was != got:
        raise RuntimeError(f"hook '{name}' has changed the type of value (was torch.{dtypes.type_name(was)}Tensor got "
                           f"torch.{dtypes.type_name(got)}Tensor)\nreturn it .to the dtype of what came")
