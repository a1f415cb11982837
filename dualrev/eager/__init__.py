"""PyTorch's way of writing, on jax arrays and dualrev's derivatives: ``from dualrev import eager as torch``.

Operations run as they are written and are recorded on tensors that require grad; ``backward()`` visits the record.  Each operation is
a jax function, whose pull is derived from the table of rules once for each set of shapes.

Small operations are evaluated by numpy, large ones are compiled: which, depends on shapes and dtypes alone.  Dtypes are PyTorch's
whatever jax's ``jax_enable_x64`` says, and no setting of jax changes.

The rooms, from the ground up: ``host`` (numpy's evaluation of traced programs), ``core`` (dtypes, modes, caches, what an operation
is), ``graph`` (tensors, nodes, the backward pass), ``ops`` (operations on tensors) and ``compiled`` (``jit``), ``autograd``, then
``nn``, ``optim`` and ``utils``; imports go down only.
May import: everything below (``functional``, ``calls``, ...).  Start reading at :mod:`dualrev.eager.graph.tensor`, then
:mod:`dualrev.eager.graph.recording` and :mod:`dualrev.eager.graph.backward_pass`.

>>> from dualrev import eager as torch
>>> x = torch.tensor([5.0], requires_grad=True)
>>> y = (x ** 2).sum()
>>> y.backward()
>>> x.grad
tensor([10.])
"""

from __future__ import annotations

from math import e as e
from math import inf as inf
from math import nan as nan
from math import pi as pi
from typing import TYPE_CHECKING

from dualrev.eager import amp as amp
from dualrev.eager import autograd as autograd
from dualrev.eager import backends as backends
from dualrev.eager import cuda as cuda
from dualrev.eager import distributions as distributions
from dualrev.eager import fft as fft
from dualrev.eager import func as func
from dualrev.eager import graph as graph
from dualrev.eager import linalg as linalg
from dualrev.eager import models as models
from dualrev.eager import nn as nn
from dualrev.eager import optim as optim
from dualrev.eager import random as random
from dualrev.eager import serialization as serialization
from dualrev.eager import special as special
from dualrev.eager import testing as testing
from dualrev.eager import utils as utils
from dualrev.eager.amp import GradScaler as GradScaler
from dualrev.eager.amp import autocast as autocast
from dualrev.eager.amp import get_autocast_dtype as get_autocast_dtype
from dualrev.eager.amp import is_autocast_enabled as is_autocast_enabled
from dualrev.eager.compiled.settled import compile as compile  # noqa: A004
from dualrev.eager.compiled.step import jit as jit
from dualrev.eager.core.caches import clear_caches as clear_caches
from dualrev.eager.core.dtype_facts import can_cast as can_cast
from dualrev.eager.core.dtype_facts import finfo as finfo
from dualrev.eager.core.dtype_facts import iinfo as iinfo
from dualrev.eager.core.dtype_facts import promote_types as promote_types
from dualrev.eager.core.dtypes import bfloat16 as bfloat16
from dualrev.eager.core.dtypes import bool as bool  # noqa: A004
from dualrev.eager.core.dtypes import cdouble as cdouble
from dualrev.eager.core.dtypes import cfloat as cfloat
from dualrev.eager.core.dtypes import complex64 as complex64
from dualrev.eager.core.dtypes import complex128 as complex128
from dualrev.eager.core.dtypes import device as device
from dualrev.eager.core.dtypes import double as double
from dualrev.eager.core.dtypes import dtype as dtype
from dualrev.eager.core.dtypes import float as float  # noqa: A004
from dualrev.eager.core.dtypes import float16 as float16
from dualrev.eager.core.dtypes import float32 as float32
from dualrev.eager.core.dtypes import float64 as float64
from dualrev.eager.core.dtypes import get_default_device as get_default_device
from dualrev.eager.core.dtypes import get_default_dtype as get_default_dtype
from dualrev.eager.core.dtypes import half as half
from dualrev.eager.core.dtypes import int as int  # noqa: A004
from dualrev.eager.core.dtypes import int8 as int8
from dualrev.eager.core.dtypes import int16 as int16
from dualrev.eager.core.dtypes import int32 as int32
from dualrev.eager.core.dtypes import int64 as int64
from dualrev.eager.core.dtypes import long as long
from dualrev.eager.core.dtypes import set_default_device as set_default_device
from dualrev.eager.core.dtypes import set_default_dtype as set_default_dtype
from dualrev.eager.core.dtypes import short as short
from dualrev.eager.core.dtypes import uint8 as uint8
from dualrev.eager.core.modes import enable_grad as enable_grad
from dualrev.eager.core.modes import inference_mode as inference_mode
from dualrev.eager.core.modes import is_grad_enabled as is_grad_enabled
from dualrev.eager.core.modes import is_inference_mode_enabled as is_inference_mode_enabled
from dualrev.eager.core.modes import no_grad as no_grad
from dualrev.eager.core.modes import set_grad_enabled as set_grad_enabled
from dualrev.eager.core.settings import are_deterministic_algorithms_enabled as are_deterministic_algorithms_enabled
from dualrev.eager.core.settings import get_deterministic_debug_mode as get_deterministic_debug_mode
from dualrev.eager.core.settings import get_float32_matmul_precision as get_float32_matmul_precision
from dualrev.eager.core.settings import get_num_interop_threads as get_num_interop_threads
from dualrev.eager.core.settings import get_num_threads as get_num_threads
from dualrev.eager.core.settings import (
    is_deterministic_algorithms_warn_only_enabled as is_deterministic_algorithms_warn_only_enabled,
)
from dualrev.eager.core.settings import is_warn_always_enabled as is_warn_always_enabled
from dualrev.eager.core.settings import set_deterministic_debug_mode as set_deterministic_debug_mode
from dualrev.eager.core.settings import set_float32_matmul_precision as set_float32_matmul_precision
from dualrev.eager.core.settings import set_flush_denormal as set_flush_denormal
from dualrev.eager.core.settings import set_num_interop_threads as set_num_interop_threads
from dualrev.eager.core.settings import set_num_threads as set_num_threads
from dualrev.eager.core.settings import set_warn_always as set_warn_always
from dualrev.eager.core.settings import use_deterministic_algorithms as use_deterministic_algorithms
from dualrev.eager.core.size import Size as Size
from dualrev.eager.cuda import accelerator as accelerator
from dualrev.eager.func.examples import vmap as vmap
from dualrev.eager.func.lowering import lower as lower
from dualrev.eager.graph.tensor import Tensor as Tensor
from dualrev.eager.nn import in_torch as _in_torch
from dualrev.eager.ops import adapters as _adapters
from dualrev.eager.ops.arguments import channels_last as channels_last
from dualrev.eager.ops.arguments import channels_last_3d as channels_last_3d
from dualrev.eager.ops.arguments import contiguous_format as contiguous_format
from dualrev.eager.ops.arguments import layout as layout
from dualrev.eager.ops.arguments import memory_format as memory_format
from dualrev.eager.ops.arguments import preserve_format as preserve_format
from dualrev.eager.ops.arguments import sparse_coo as sparse_coo
from dualrev.eager.ops.arguments import sparse_csr as sparse_csr
from dualrev.eager.ops.arguments import strided as strided
from dualrev.eager.ops.generator import Generator as Generator
from dualrev.eager.ops.generator import default_generator as default_generator
from dualrev.eager.ops.lifting import lift as lift
from dualrev.eager.ops.registry import FUNCTIONS as _FUNCTIONS

if TYPE_CHECKING:
    from dualrev.eager.functions import *  # noqa: F403
    from dualrev.eager.makers import *  # noqa: F403
    from dualrev.eager.networks import *  # noqa: F403
    from dualrev.eager.numerics import *  # noqa: F403

newaxis = None
#: The release of PyTorch whose interface this is: programs ask for it.
__version__ = "2.13.0+dualrev"
_FUNCTIONS.update(_in_torch.named())
_adapters.complete()
globals().update(_FUNCTIONS)
