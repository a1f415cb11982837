"""Every family of the table: importing this module fills it."""

from __future__ import annotations

from dualrev.calls import annotated as annotated
from dualrev.calls import branch as branch
from dualrev.calls import custom_vmap as custom_vmap
from dualrev.calls import foreign as foreign
from dualrev.calls import hijax as hijax
from dualrev.calls import jit as jit
from dualrev.calls import linear_solve as linear_solve
from dualrev.calls import region as region
from dualrev.calls import remat as remat
from dualrev.calls import shard_map as shard_map
from dualrev.calls import user_reductions as user_reductions
from dualrev.calls.loops import scan as scan
from dualrev.calls.loops import while_loop as while_loop
from dualrev.rules import callback as callback
from dualrev.rules import collective as collective
from dualrev.rules import contract as contract
from dualrev.rules import conv as conv
from dualrev.rules import elementwise as elementwise
from dualrev.rules import fft as fft
from dualrev.rules import index as index
from dualrev.rules import reduce as reduce
from dualrev.rules import sampled as sampled
from dualrev.rules import shape as shape
from dualrev.rules import sort as sort
from dualrev.rules import state as state
from dualrev.rules import window as window
from dualrev.rules import zero as zero
from dualrev.rules.linalg import eigen as eigen
from dualrev.rules.linalg import factorizations as factorizations
from dualrev.rules.linalg import householder as householder
from dualrev.rules.linalg import singular as singular
from dualrev.rules.linalg import solve as solve
from dualrev.rules.linalg import spectral as spectral
from dualrev.rules.special import functions as functions
from dualrev.table.rows import optional

# Importing these takes time, and a program that has not imported them uses none of their operations.
optional["jax._src.pallas.pallas_call"] = ("dualrev.calls.pallas",)
optional["jax.experimental.multihost_utils"] = ("dualrev.rules.hosts",)
optional["jax.experimental.sparse"] = ("dualrev.rules.sparse.bcoo", "dualrev.rules.sparse.bcsr")
