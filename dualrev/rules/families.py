"""Every family of the table: importing this module fills it."""

from __future__ import annotations

from dualrev.rules import branch as branch
from dualrev.rules import callback as callback
from dualrev.rules import calls as calls
from dualrev.rules import collective as collective
from dualrev.rules import combine as combine
from dualrev.rules import contract as contract
from dualrev.rules import control as control
from dualrev.rules import conv as conv
from dualrev.rules import custom_vmap as custom_vmap
from dualrev.rules import eigen as eigen
from dualrev.rules import elementwise as elementwise
from dualrev.rules import fft as fft
from dualrev.rules import flat as flat
from dualrev.rules import foreign as foreign
from dualrev.rules import high as high
from dualrev.rules import householder as householder
from dualrev.rules import index as index
from dualrev.rules import linalg as linalg
from dualrev.rules import reduce as reduce
from dualrev.rules import region as region
from dualrev.rules import remat as remat
from dualrev.rules import scan as scan
from dualrev.rules import shape as shape
from dualrev.rules import shard as shard
from dualrev.rules import singular as singular
from dualrev.rules import solve as solve
from dualrev.rules import sort as sort
from dualrev.rules import special as special
from dualrev.rules import spectral as spectral
from dualrev.rules import state as state
from dualrev.rules import while_loop as while_loop
from dualrev.rules import window as window
from dualrev.rules.table import optional

# Importing these takes time, and a program that has not imported them uses none of their operations.
optional["jax._src.pallas.pallas_call"] = ("dualrev.rules.kernel",)
optional["jax.experimental.multihost_utils"] = ("dualrev.rules.hosts",)
optional["jax.experimental.sparse"] = ("dualrev.rules.sparse", "dualrev.rules.compressed")
