"""A time model: how long a traced program will run once it is compiled, before it is compiled.

The program is cut into kernels as the compiler's instruction fusion would (:mod:`~dualrev.time_model.fusion`), and ::

    program  =  call + leaves · leaf + Σ kernels + Σ calls + Σ loops + fresh bytes · page faults + (hand over to a thread)
    kernel   =  launch + Σ (first entry + entries · seconds(operation, dtype)) + bytes / rate(working set)
    call     =  launch + base(operation) + work(operation) · seconds + bytes / rate
    loop     =  steps · (step + body) + stacks filled, written and read          a small body: no launches, the loop is one kernel

A working set has the rate of the smallest level of memory that holds it.  The constants are those of one backend and compiler
(:mod:`~dualrev.time_model.machine`): shipped, or measured by ``python -m dualrev calibrate``.  ``python -m benchmarks.prediction``
compares predictions with measured times of functions and gradients.  They are rough: a choice between two programs should ask for a
clear difference.  Not seen is how well a kernel is vectorised: nests of slices and pads may take several times what is predicted.

Source: the shape of the formula is the roofline's [Williams et al. 2009], with launches; the rules of fusion are XLA's.

May import: ``_jax``, ``errors``, ``options``, ``linear``, ``programs``, ``table``.  Start reading at
:mod:`~dualrev.time_model.pricing`.
"""

from dualrev.time_model.choices import accumulate_cost as accumulate_cost
from dualrev.time_model.choices import cost_of_equation as cost_of_equation
from dualrev.time_model.choices import kernel_cost as kernel_cost
from dualrev.time_model.choices import read_cost as read_cost
from dualrev.time_model.choices import recompute_cost as recompute_cost
from dualrev.time_model.choices import reduce_cost as reduce_cost
from dualrev.time_model.choices import store_cost as store_cost
from dualrev.time_model.machine import Constants as Constants
from dualrev.time_model.machine import constants as constants
from dualrev.time_model.machine import shipped as shipped
from dualrev.time_model.prediction import Prediction as Prediction
from dualrev.time_model.prediction import predict as predict
from dualrev.time_model.prediction import time_in_words as time_in_words
from dualrev.time_model.pricing import Cost as Cost
from dualrev.time_model.pricing import cost_of_jaxpr as cost_of_jaxpr
from dualrev.time_model.pricing import time_of as time_of
