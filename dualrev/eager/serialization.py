"""``torch.save`` and ``torch.load``: tensors, and the containers that hold them, in safetensors files.

A file is the length of a header (eight bytes, little-endian), the header (JSON: for each name its dtype, shape and offsets), and the
values.  A state_dict is written as it is, so that PyTorch's safetensors reads the file, and its files load here.  The structure
around tensors in other containers is a skeleton in the header's metadata.

Format: [https://huggingface.co/docs/safetensors, "Format"].
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.annotations import Device
from dualrev.eager.core.dtypes import numpy_of
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.creation import finished
from dualrev.eager.ops.registry import function

_TYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "C64": np.complex64, "I64": np.int64,
    "I32": np.int32, "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}
_LETTERS = {np.dtype(dtype): name for name, dtype in _TYPES.items()}
#: The key of the skeleton in the metadata.
_SKELETON = "dualrev"
#: The first bytes of a file that holds a whole module: a pickle follows.
_MODULE = b"dualrev module\n"
File: TypeAlias = str | os.PathLike[str] | IO[bytes]


# ---------------------------------------------------------------------------------------------------------------- the format

def pack(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file.

    Raises:
      TypeError: the format has no such dtype.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    place, parts = 0, []
    # Wide entries first, so that each array starts at a multiple of its entry's size.
    for name in sorted(arrays, key=lambda n: (-arrays[n].dtype.itemsize, n)):
        array = arrays[name]
        if array.dtype not in _LETTERS:
            raise TypeError(f"safetensors files hold no {array.dtype}, the dtype of '{name}'\nconvert it before saving")
        header[name] = {"dtype": _LETTERS[array.dtype], "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
        parts.append(np.ascontiguousarray(array).tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def unpack(data: bytes, where: str = "these bytes") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises:
      ValueError: it is not one.
    """
    # The size of a header may begin as a pickle does: a header begins with a brace.
    if data[8:9] != b"{" and (data[:2] == b"PK" or data[:1] == b"\x80"):
        raise ValueError(f"{where} is a pickle as PyTorch's torch.save writes it, which would run code that is in it\n"
                         "write it as safetensors where PyTorch is: safetensors.torch.save_file(model.state_dict(), path)")
    size = int.from_bytes(data[:8], "little")
    try:
        if not 2 <= size <= len(data) - 8:
            raise ValueError(f"its header would take {size} bytes, of {max(len(data) - 8, 0)}")
        header = json.loads(data[8: 8 + size])
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        metadata = header.pop("__metadata__", {})
        values, arrays = memoryview(data)[8 + size:], {}
        for name, entry in header.items():
            dtype, (a, b) = np.dtype(_TYPES[entry["dtype"]]), entry["data_offsets"]
            if not 0 <= a <= b <= len(values) or b - a != math.prod(entry["shape"]) * dtype.itemsize:
                raise ValueError(f"'{name}', {entry['dtype']} of shape {entry['shape']}, does not fit its place, {a} to {b} of "
                                 f"{len(values)} bytes")
            arrays[name] = np.frombuffer(values[a:b], dtype).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where} is no safetensors file, or a part of one: {reason}") from None
    return arrays, metadata


# ------------------------------------------------------------------------------------------------------------ the structure

def _skeleton(x: object, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The containers around tensors, as JSON; the tensors are added to ``arrays`` under their paths."""
    if isinstance(x, (Tensor, np.ndarray, np.generic, jax.Array)):
        name = path or "tensor"
        while name in arrays:
            name += "'"
        arrays[name] = np.asarray(array_of(x) if isinstance(x, Tensor) else x)
        return {"tensor": name, **({"requires_grad": True} if isinstance(x, Tensor) and x.requires_grad else {})}
    if isinstance(x, Mapping):
        return {"dict": [[k, _skeleton(v, f"{path}.{k}" if path else str(k), arrays)] for k, v in x.items() if _is_key(k, path)],
                **({"ordered": True} if isinstance(x, OrderedDict) else {})}
    if isinstance(x, (list, tuple)):
        return {type(x).__name__ if type(x) in (list, tuple) else "tuple":
                [_skeleton(v, f"{path}.{i}" if path else str(i), arrays) for i, v in enumerate(x)]}
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    advice = "save its state_dict()" if hasattr(x, "state_dict") else "save tensors, numbers, strings, and lists and dicts of them"
    raise TypeError(f"torch.save cannot write {f'the {type(x).__name__} at {path}' if path else f'a {type(x).__name__}'}\n{advice}")


def _is_key(key: object, path: str) -> bool:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise TypeError(f"torch.save cannot write the key {key!r}{f' at {path}' if path else ''}\nkeys are strings or whole numbers")
    return True


def _restored(x: Any, arrays: dict[str, np.ndarray], device: Device | None) -> Any:
    if not isinstance(x, dict):
        return x
    if "tensor" in x:
        return _tensor(arrays[x["tensor"]], device).requires_grad_(x.get("requires_grad", False))
    if "dict" in x:
        return (OrderedDict if x.get("ordered") else dict)((k, _restored(v, arrays, device)) for k, v in x["dict"])
    kind, = x
    return {"list": list, "tuple": tuple}[kind](_restored(v, arrays, device) for v in x[kind])


def _tensor(array: np.ndarray, device: Device | None) -> Tensor:
    return finished(np.array(array, numpy_of(array.dtype)), False, device)


# ------------------------------------------------------------------------------------------------------------ save and load

@function
def save(obj: object, f: File) -> None:
    """Write tensors, numbers, strings, and lists and dicts of them, as a safetensors file.

    A state_dict becomes a file that PyTorch reads with ``safetensors.torch.load_file``.  A whole module is pickled: loading it needs
    its class, and runs code that is in the file.

    Args:
      obj: a module, a state_dict, a checkpoint that holds several, a tensor, ...
      f: a path, or a file opened for writing bytes.

    Raises:
      TypeError: it contains something else, a module inside a dict for example.

    >>> import io
    >>> from dualrev import eager as torch
    >>> file = io.BytesIO()
    >>> torch.save({"epoch": 3, "weights": [torch.ones(2)]}, file)
    >>> _ = file.seek(0)
    >>> torch.load(file)
    {'epoch': 3, 'weights': [tensor([1., 1.])]}
    """
    if hasattr(obj, "named_parameters"):
        _write(_MODULE + pickle.dumps(obj), f)
        return
    arrays: dict[str, np.ndarray] = {}
    skeleton = _skeleton(obj, "", arrays)
    flat = isinstance(obj, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) and not v.requires_grad
                                            for k, v in obj.items())
    _write(pack(arrays, {"format": "pt"} if flat else {_SKELETON: json.dumps(skeleton, separators=(",", ":"))}), f)


def _write(data: bytes, f: File) -> None:
    if isinstance(f, (str, os.PathLike)):
        # Written under another name first: a program that is stopped while it writes leaves the last checkpoint intact.
        beside = f"{os.fspath(f)}.part"
        with open(beside, "wb") as file:
            file.write(data)
        os.replace(beside, f)
    else:
        f.write(data)


@function
def load(f: File, map_location: Device | None = None, *, weights_only: bool = True, mmap: bool | None = None) -> Any:
    """Read what :func:`save` wrote, or a state_dict in a safetensors file that PyTorch wrote.

    Args:
      f: a path, or a file opened for reading bytes.
      map_location: the device of the tensors; by default that of new tensors.
      weights_only: whether a whole module is refused, whose file holds code.
      mmap: accepted for compatibility.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no safetensors file.
      UnpicklingError: it holds a whole module, and ``weights_only`` is true.
    """
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            data, where = file.read(), f"'{os.fspath(f)}'"
    else:
        data, where = f.read(), "the file" if not isinstance(f, io.BytesIO) else "the buffer"
    if data.startswith(_MODULE):
        if weights_only:
            raise pickle.UnpicklingError("Weights only load failed. This file can still be loaded, do so only if you trust its source: "
                                         "torch.load(f, weights_only=False) runs code that is in it\nit holds a whole module")
        module = pickle.loads(data[len(_MODULE):])
        return module if map_location is None else module.to(map_location)
    arrays, metadata = unpack(data, where)
    if _SKELETON in metadata:
        return _restored(json.loads(metadata[_SKELETON]), arrays, map_location)
    return OrderedDict((name, _tensor(array, map_location)) for name, array in arrays.items())
