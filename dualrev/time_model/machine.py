"""The constants of the time model: what one machine and one compiler need for each kind of work.

Defaults are shipped for each backend and compiler; ``python -m dualrev calibrate`` measures those of this machine and keeps them in
``$XDG_CACHE_HOME/dualrev`` (``~/.cache/dualrev``).  The library only reads that file, the first time that constants are asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import jax

from dualrev._jax.avals import JAXLIB_VERSION

#: Seconds for numbers of at most 32 bits, and of 64 bits.
BySize: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Constants:
    """Seconds, bytes and rates; a rate is a number for each second.

    The formula that they stand in is that of :mod:`dualrev.time_model`; each is explained where it is declared.

    >>> from dualrev import time_model
    >>> time_model.constants("cpu").backend
    'cpu'
    """

    #: ``cpu``, ``gpu`` or ``tpu``.
    backend: str
    #: The compiler, and whether the constants were shipped or measured here.
    name: str
    #: A call of a compiled program, each of its arguments, and each of its results.
    call_s: float
    leaf_s: float
    result_s: float
    #: A program of at least ``handed_flops`` (a step of each loop counted once) is handed to another thread.
    handed_flops: float
    hand_s: float
    #: A kernel of a program; and of a loop's body.
    kernel_s: float
    loop_kernel_s: float
    #: Each array that a kernel reads or writes, unless the kernel is part of one.
    argument_s: float
    #: The same in a program, and a body, of more than eight parts, which is run as a graph.
    graph_s: float
    graph_kernel_s: float
    #: What a part is delayed by where a graph is split among threads, because many of its parts can start at once.
    split_s: float
    #: The threads that share a large kernel.
    threads: float
    #: In a kernel that works on one entry at a time: an entry of a simple operation, and how many times an entry of another one takes.
    scalar_s: float
    scalar_times: float
    #: A step of a loop that is one kernel; and of one that is many.
    one_kernel_step_s: float
    #: A part of a loop that is one kernel.
    within_s: float
    step_s: float
    #: A loop is one kernel if the bytes that a step reads and writes stay below this.
    one_kernel_bytes: float
    #: Products of matrices with at least this many multiplications, and sums of at least this many entries, run in a library: a loop
    #: with one is not one kernel.
    library_dot: float
    library_sum: float
    #: A memory level holds so many bytes, and a kernel reads and writes them at this rate; the last level holds all.
    levels: tuple[tuple[float, float], ...]
    #: Memory that is taken from the system for a call: from so many bytes on, each byte costs this.
    fresh_from: float
    fresh_s: float
    #: An entry of an elementwise operation, by the primitive's name; ``simple`` are sums, products, comparisons, selections;
    #: ``other`` is what is not listed.
    entry_s: Mapping[str, BySize] = field(hash=False)
    #: What the first entry of a kernel takes besides, as nothing overlaps with it: of a simple operation, of a division or root, and of
    #: any other.
    first_s: tuple[float, float, float]
    #: An entry that is put together from several arrays, which keeps a kernel from working on several entries at once.
    join_s: float
    #: An entry of an array with a margin of zeros, which is looked at one by one.
    pad_s: float
    #: An entry that a reduction reads along the last axis, and along others; that is read or written by index; and that is sorted, for
    #: each of log2(n) rounds.
    reduce_s: BySize
    reduce_rows_s: BySize
    gather_s: BySize
    scatter_s: BySize
    sort_s: BySize
    #: A reduction by a library: an entry that it reads, an entry of the arithmetic before, and what each reduction costs besides.
    library_sum_s: BySize
    library_entry_s: BySize
    library_s: float
    #: Products of matrices: the rates, and what each costs besides.
    dot_per_s: BySize
    dot_s: float
    #: How many times as long a product takes where the entries that are summed are not neighbours in the first factor, or are in the
    #: second.
    turned_times: float
    #: The same of convolutions, and how many times as long one of few channels takes.
    conv_per_s: BySize
    conv_s: float
    thin_conv_times: float
    #: The same for each operation of a product that is written out within a kernel.
    written_dot_s: float
    #: Calls of libraries: ``(seconds, seconds for each unit of work)``, where work is n³ (see :mod:`dualrev.time_model.pricing`).
    calls: Mapping[str, tuple[float, float]] = field(hash=False)

    def rate(self, nbytes: float) -> float:
        """The rate at which memory is read and written by what works on so many bytes."""
        return next((rate for holds, rate in self.levels if nbytes <= holds), self.levels[-1][1])

    def entry(self, name: str, itemsize: int) -> float:
        small, large = self.entry_s.get(name) or self.entry_s["other"]
        return large if itemsize > 4 else small

    def replace(self, **changes: Any) -> Constants:
        return dataclasses.replace(self, **changes)


NS = 1e-9

# Fitted on the corpus: see the package's documentation.
_CPU = Constants(
    backend="cpu", name="XLA:CPU of jax 0.10", handed_flops=1000, one_kernel_bytes=1024, library_dot=math.inf, library_sum=math.inf,
    threads=2, fresh_from=2**17, call_s=2.9e-06, leaf_s=440 * NS, result_s=1.1e-06, hand_s=1.4e-06, kernel_s=510 * NS,
    graph_s=85 * NS, split_s=270 * NS, loop_kernel_s=9.2 * NS, graph_kernel_s=41 * NS, argument_s=1.1 * NS, scalar_s=0.05 * NS,
    scalar_times=3.5, one_kernel_step_s=3.7 * NS, within_s=0.16 * NS, step_s=17 * NS, fresh_s=0.0021 * NS, levels=((2**15, 9.9e11),
    (2**20, 2.3e11), (2**24, 8.5e10), (math.inf, 1.2e10)), first_s=(0.18 * NS, 2.5 * NS, 6.1 * NS), join_s=0.058 * NS, pad_s=0.3 * NS,
    reduce_s=(0.076 * NS, 0.15 * NS), reduce_rows_s=(0.019 * NS, 0.033 * NS), gather_s=(0.095 * NS, 1.5 * NS), scatter_s=(0.15 * NS,
    3.3 * NS), sort_s=(6 * NS, 6 * NS), library_sum_s=(0.048 * NS, 0.039 * NS), library_entry_s=(0.087 * NS, 0.51 * NS),
    library_s=270 * NS, dot_per_s=(1.2e11, 4.8e10), dot_s=510 * NS, turned_times=2.2, conv_per_s=(9.4e10, 2e10), conv_s=1e-06,
    thin_conv_times=5.4, written_dot_s=0.0097 * NS, entry_s={"simple": (0.007 * NS, 0.023 * NS), "div": (0.15 * NS, 0.12 * NS),
    "sqrt": (0.17 * NS, 0.5 * NS), "rsqrt": (0.17 * NS, 0.45 * NS), "exp": (0.81 * NS, 2.3 * NS), "log": (0.76 * NS, 4.7 * NS), "sin":
    (3.8 * NS, 8.1 * NS), "cos": (3.7 * NS, 9.1 * NS), "tanh": (0.6 * NS, 1.9 * NS), "logistic": (0.89 * NS, 3.2 * NS), "log1p":
    (1.7 * NS, 5.6 * NS), "expm1": (1.6 * NS, 3.9 * NS), "pow": (1.6 * NS, 21 * NS), "erf": (0.54 * NS, 6.6 * NS), "exp2": (0.84 * NS,
    2.6 * NS), "tan": (4.6 * NS, 10 * NS), "other": (10 * NS, 13 * NS), "random": (3 * NS, 6 * NS), "special": (7 * NS, 20 * NS)},
    calls={"cholesky": (1.2e-06, 0.14 * NS), "triangular_solve": (2e-06, 0.012 * NS), "lu": (770 * NS, 0.04 * NS), "qr": (3e-06,
    0.4 * NS), "eigh": (1e-05, 3 * NS), "svd": (1e-05, 5 * NS), "eig": (2e-05, 8 * NS), "fft": (1e-06, 2 * NS), "other": (500 * NS,
    0.5 * NS)})

_CPU_NEW = _CPU.replace(
    name="XLA:CPU of jax 0.12", one_kernel_bytes=math.inf, library_dot=64, library_sum=4096, call_s=3.3e-06, leaf_s=490 * NS,
    result_s=1.3e-06, hand_s=1.3e-06, kernel_s=480 * NS, graph_s=91 * NS, split_s=310 * NS, loop_kernel_s=8.9 * NS,
    graph_kernel_s=67 * NS, argument_s=1.1 * NS, scalar_s=0.041 * NS, scalar_times=2.1, one_kernel_step_s=3.8 * NS,
    within_s=0.16 * NS, step_s=17 * NS, fresh_s=0.0021 * NS, levels=((2**15, 1e12), (2**20, 2.1e11), (2**24, 9.9e10), (math.inf,
    1.2e10)), first_s=(0.17 * NS, 2.5 * NS, 6.2 * NS), join_s=0.057 * NS, pad_s=0.29 * NS, reduce_s=(0.077 * NS, 0.15 * NS),
    reduce_rows_s=(0.019 * NS, 0.033 * NS), gather_s=(0.096 * NS, 1.6 * NS), scatter_s=(0.15 * NS, 3.3 * NS),
    library_sum_s=(0.048 * NS, 0.039 * NS), library_entry_s=(0.087 * NS, 0.57 * NS), library_s=280 * NS, dot_per_s=(1.2e11, 4.8e10),
    dot_s=420 * NS, turned_times=2.1, conv_per_s=(8.8e10, 2e10), conv_s=1e-06, thin_conv_times=5.3, written_dot_s=0.0097 * NS,
    entry_s={"simple": (0.007 * NS, 0.022 * NS), "div": (0.15 * NS, 0.11 * NS), "sqrt": (0.17 * NS, 0.5 * NS), "rsqrt": (0.17 * NS,
    0.45 * NS), "exp": (0.81 * NS, 2.2 * NS), "log": (0.76 * NS, 4.5 * NS), "sin": (3.8 * NS, 9 * NS), "cos": (3.7 * NS, 9.6 * NS),
    "tanh": (0.59 * NS, 1.8 * NS), "logistic": (0.89 * NS, 3 * NS), "log1p": (1.7 * NS, 5.6 * NS), "expm1": (1.6 * NS, 3.9 * NS),
    "pow": (1.6 * NS, 20 * NS), "erf": (0.54 * NS, 6.6 * NS), "exp2": (0.84 * NS, 2.6 * NS), "tan": (4.6 * NS, 10 * NS), "other":
    (10 * NS, 13 * NS), "random": (3 * NS, 6 * NS), "special": (7 * NS, 20 * NS)}, calls={"cholesky": (1.2e-06, 0.14 * NS),
    "triangular_solve": (2e-06, 0.012 * NS), "lu": (770 * NS, 0.04 * NS), "qr": (3e-06, 0.4 * NS), "eigh": (1e-05, 3 * NS), "svd":
    (1e-05, 5 * NS), "eig": (2e-05, 8 * NS), "fft": (1e-06, 2 * NS), "other": (500 * NS, 0.5 * NS)})

_GPU = _CPU.replace(
    backend="gpu", name="a GPU", call_s=2e-5, leaf_s=1e-6, result_s=1e-6, handed_flops=math.inf, hand_s=0.0, kernel_s=3e-6,
    loop_kernel_s=3e-6,
    argument_s=0.0, graph_s=3e-6, graph_kernel_s=3e-6, split_s=0.0, threads=1, scalar_s=0.0, scalar_times=1,
    one_kernel_step_s=2e-5, within_s=0.0, step_s=1e-5, one_kernel_bytes=0,
    levels=((2**25, 4e12), (math.inf, 2e12)), fresh_from=math.inf, fresh_s=0.0,
    entry_s={"simple": (5e-14, 1e-13), "other": (5e-13, 2e-12), "random": (1e-12, 1e-12), "special": (5e-12, 2e-11)},
    first_s=(0.0, 0.0, 0.0), join_s=1e-13, pad_s=1e-13, reduce_s=(1e-12, 2e-12), reduce_rows_s=(1e-12, 2e-12), gather_s=(1e-11, 1e-11),
    scatter_s=(2e-11, 2e-11), sort_s=(1e-11, 1e-11), library_sum_s=(1e-12, 2e-12), library_entry_s=(5e-14, 1e-13), library_s=0.0,
    dot_per_s=(2e13, 1e13), dot_s=3e-6, turned_times=1.0, conv_per_s=(2e13, 1e13), conv_s=3e-6, thin_conv_times=1.0,
    written_dot_s=1e-12, calls={"other": (5e-5, 1e-12)})

_TPU = _GPU.replace(backend="tpu", name="a TPU", kernel_s=1e-6, loop_kernel_s=1e-6, graph_s=1e-6, graph_kernel_s=1e-6,
                    dot_per_s=(5e13, 1e12))


def shipped(backend: str, release: str = jax.__version__) -> Constants:
    """The constants that come with the package, of a backend and a release of jax."""
    if backend == "cpu":
        numbers = [int(n) for n in re.findall(r"\d+", release)[:2]]
        return _CPU if numbers < [0, 11] else _CPU_NEW
    return _TPU if backend == "tpu" else _GPU


def cache_file(backend: str | None = None) -> Path:
    """Where the measured constants of this machine stand: the name says backend, device, compiler and number of cores."""
    root = os.environ.get("XDG_CACHE_HOME") or ""
    folder = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return folder / "dualrev" / f"time-model-{'-'.join(map(_plain, _key(backend).values()))}.json"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text)


def _key(backend: str | None) -> dict[str, str]:
    devices = jax.local_devices(backend=backend)
    return {"backend": devices[0].platform, "device": str(devices[0].device_kind), "jaxlib": JAXLIB_VERSION,
            "cores": str(os.cpu_count() or 1)}


def write(measured: Constants, path: Path) -> None:
    """Keep measured constants for later processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"made for": _key(measured.backend), "constants": dataclasses.asdict(measured)}
    text = json.dumps(content, indent=1)
    aside = path.with_suffix(f".{os.getpid()}.tmp")  # nobody reads half a file
    aside.write_text(text)
    aside.replace(path)


def read(path: Path, backend: str | None = None) -> Constants:
    """Constants from a file; ValueError, which says why, where it can't be used."""
    try:
        content = json.loads(path.read_text())
        made_for, found = content["made for"], content["constants"]
        if made_for != _key(backend):
            raise ValueError(f"it was made for {made_for}, not for {_key(backend)}")
        names = {f.name for f in dataclasses.fields(Constants)}
        if set(found) != names:
            raise ValueError(f"it has other entries: {', '.join(sorted(names.symmetric_difference(found)))}")
        return Constants(**{name: _checked(name, value, getattr(_CPU, name)) for name, value in found.items()})
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"it can't be read ({type(error).__name__}: {error})") from error


def _checked(name: str, value: Any, like: Any) -> Any:
    """A value from JSON in the type that the constant has."""
    if isinstance(like, str):
        if isinstance(value, str):
            return value
    elif isinstance(like, Mapping):
        if isinstance(value, dict) and like.keys() <= value.keys():
            return {key: _checked(f"{name}[{key}]", pair, (0.0, 0.0)) for key, pair in value.items()}
    elif isinstance(like, tuple):
        is_list_of_pairs = isinstance(like[0], tuple)
        if isinstance(value, list) and value and (is_list_of_pairs or len(value) == len(like)):
            return tuple([_checked(name, x, like[0]) for x in value])
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError(f"its {name} is {value!r}")


def constants(backend: str | None = None) -> Constants:
    """The constants of the current backend, or of another one: measured on this machine, if they were, or else the shipped ones.

    Args:
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``; by default, that of jax.

    Returns:
      The :class:`Constants`, those that ``python -m dualrev calibrate`` wrote if it has run here.

    Raises:
      RuntimeWarning: the file that ``calibrate`` wrote cannot be read; the shipped constants stand in for it.

    >>> from dualrev import time_model
    >>> time_model.constants("cpu").backend
    'cpu'
    """
    return _constants(backend or jax.default_backend())


#: What planners compare with on a CPU: the prices at the margin.
_MARGINS: Mapping[str, Any] = dict(
    kernel_s=300 * NS, loop_kernel_s=35 * NS, one_kernel_step_s=6 * NS, step_s=30 * NS, argument_s=0.0,
    levels=((2**20, 170e9), (2**24, 60e9), (math.inf, 20e9)), fresh_s=.02 * NS, first_s=(.55 * NS, 9 * NS, 9 * NS), join_s=.2 * NS,
    pad_s=.2 * NS, reduce_s=(.2 * NS, .3 * NS), reduce_rows_s=(.2 * NS, .3 * NS), library_sum_s=(.2 * NS, .3 * NS), library_s=35 * NS,
    library_entry_s=(.01 * NS, .02 * NS), gather_s=(.45 * NS, .45 * NS), scatter_s=(.9 * NS, .9 * NS), dot_per_s=(130e9, 70e9),
    dot_s=400 * NS, turned_times=1.0, conv_per_s=(130e9, 70e9), conv_s=400 * NS, thin_conv_times=1.0, threads=1.0,
    calls={**_CPU.calls, "cholesky": (1e-6, .1 * NS), "triangular_solve": (1e-6, .1 * NS), "lu": (2e-6, .15 * NS),
           "other": (1e-6, .5 * NS)},
    entry_s={"simple": (.01 * NS, .02 * NS), "div": (.13 * NS, .23 * NS), "sqrt": (.17 * NS, .5 * NS), "rsqrt": (.17 * NS, .45 * NS),
             "exp": (.4 * NS, 1.6 * NS), "log": (.7 * NS, 3.2 * NS), "sin": (3.8 * NS, 9 * NS), "cos": (3.8 * NS, 9 * NS),
             "tanh": (.3 * NS, 1 * NS), "logistic": (.45 * NS, 1.7 * NS), "log1p": (1 * NS, 4.2 * NS), "expm1": (.75 * NS, 2.3 * NS),
             "pow": (4.7 * NS, 11.5 * NS), "erf": (.27 * NS, 9 * NS), "exp2": (.35 * NS, 1.2 * NS), "tan": (8 * NS, 10 * NS),
             "other": (10 * NS, 13 * NS), "random": (3 * NS, 6 * NS), "special": (7 * NS, 20 * NS)})


def margins(backend: str | None = None) -> Constants:
    """The constants that planners compare with: what one more kernel, stack or entry costs in a loop that is there anyway.

    A prediction adds up all kernels, so that its constants are averages; what is added to a large program costs more than that.
    """
    return _margins(constants(backend))


@functools.lru_cache(maxsize=16)
def _margins(found: Constants) -> Constants:
    return found.replace(**_MARGINS) if found.backend == "cpu" else found


@functools.cache
def _constants(backend: str) -> Constants:
    family = backend if backend in ("cpu", "tpu") else "gpu"
    try:
        path = cache_file(backend)
    except RuntimeError:  # no such backend here, or no home
        return shipped(family)
    if not path.exists():
        return shipped(family)
    try:
        return read(path, backend)
    except ValueError as error:
        warnings.warn(f"dualrev: the file {path} with the constants of the time model is not used: {error}. The shipped constants "
                      "stand in for it; python -m dualrev calibrate writes a new one.", RuntimeWarning, stacklevel=3)
        return shipped(family)


def forget() -> None:
    """Read the file of constants again, which was written in this process."""
    _constants.cache_clear()
