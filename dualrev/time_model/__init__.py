"""A time model: how long a traced program will run once it is compiled, before it is compiled.

The program is cut into kernels as the compiler's instruction fusion would (:mod:`~dualrev.time_model.fusion`), and ::

    program  =  call + leaves · leaf + Σ kernels + Σ calls + Σ loops + fresh bytes · page faults + hand over to a thread + split
    kernel   =  launch + arguments · argument + (Σ (first entry + entries · seconds(operation, dtype)) + bytes / rate) / threads
    call     =  launch + base(operation) + work(operation) · seconds + bytes / rate
    loop     =  steps · (step + body) + stacks filled, written and read        a small body: one kernel, whose parts are not launched

A working set has the rate of the smallest level of memory that holds it.  An entry takes longer where a kernel works on one at a time
(``Kernel.is_scalar``).  A launch costs more where a program has more than eight parts, which XLA:CPU runs as a graph, and many parts
that can start at once are split among threads.  Facts about the compiler are counted, not fitted: reductions of long axes are two
kernels that read memory, joins with several readers are stored, sines are computed again rather than stored, what does not change
leaves a loop, a window is written in place.

The constants are those of one backend and compiler (:mod:`~dualrev.time_model.machine`).  Those of a CPU were fitted on measured times
of functions, jax's and dualrev's gradients of the corpus without what is tagged "held out": least squares of the logarithm of
predicted over measured time, with a loss that outliers saturate (Cauchy), drawn towards the values of microbenchmarks, for both
releases at once, their constants drawn towards each other.  ``python -m dualrev calibrate`` scales groups of them to this machine.
``python -m benchmarks.prediction`` compares predictions with measured times.  They are rough: a choice between two programs should ask
for a clear difference.  Not seen are kernels that the compiler does not fuse since it would write them out too often (nested pads,
long programs without loops), and functions fused into a library's reduction.

Planners compare prices at the margin (:func:`margins`), which do not depend on a calibration.  Plans that exist do not see a change of
constants within a process.

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
from dualrev.time_model.machine import margins as margins
from dualrev.time_model.machine import shipped as shipped
from dualrev.time_model.prediction import Prediction as Prediction
from dualrev.time_model.prediction import predict as predict
from dualrev.time_model.prediction import time_in_words as time_in_words
from dualrev.time_model.pricing import Cost as Cost
from dualrev.time_model.pricing import cost_of_jaxpr as cost_of_jaxpr
from dualrev.time_model.pricing import time_of as time_of
