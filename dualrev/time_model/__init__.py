"""A time model: how long a traced program will run once it is compiled, before it is compiled.

The program is cut into kernels as the compiler's instruction fusion would (:mod:`~dualrev.time_model.fusion`), and ::

    program  =  call + arguments · leaf + results · result + Σ kernels + Σ calls + Σ loops
                + fresh bytes · page faults + hand over to a thread + split
    kernel   =  launch + arguments · argument + (Σ (first entry + entries · seconds(operation, dtype)) + bytes / rate) / threads
    sum      =  kernel + library,  Σ entries · seconds of the library       a reduction of many entries, and the arithmetic before it
    call     =  launch + base(operation) + work(operation) · seconds + bytes / rate
    product  =  launch + base + flops / (rate · threads) · (1 or turned) + bytes / rate
    loop     =  steps · (step + body) + stacks filled, written and read        a small body: one kernel, whose parts are not launched

A loop that is one kernel by itself (:mod:`dualrev._jax.one_kernel`) is that on CPUs alone.  Bytes have the rate of the smallest level
of memory that holds a kernel's arrays twice, or all of the program's.  An entry takes longer where a kernel works on one at a time
(``Kernel.is_scalar``).  A product is turned where a factor is read across its rows.  A launch costs more where a program has more than
eight parts, which XLA:CPU runs as a graph, and many parts that can start at once are split among threads.

Facts about the compiler are counted, not fitted (:mod:`~dualrev.time_model.fusion_rules`), and tests compare them with what it makes of
small programs: reductions of long axes are kernels of windows, a library sums many entries, joins along rows are kernels, joins with
several readers are stored, sines are computed again rather than stored, what does not change leaves a loop, a window is written in
place.

The constants are those of one backend and compiler (:mod:`~dualrev.time_model.machine`).  Those of a CPU were fitted on the processor
time, on one thread, of functions, jax's and dualrev's gradients of the corpus without what is tagged "held out" (``python -m
benchmarks.prediction --one-thread``): least squares of the logarithm of predicted over measured time, with a loss that outliers
saturate (Cauchy, of scale .15), drawn towards the values of microbenchmarks (a factor e^.4; of functions such as exp, e^.14), for both
releases at once, their constants drawn towards each other (e^.1; launches, e^.2).  Two thirds of the corpus are predicted within 25 %,
the median error is 13 %; of what is held out, half, and 22 %.  ``python -m dualrev calibrate`` scales groups of constants to this
machine.  ``python -m benchmarks.prediction`` compares predictions with measured times, ``python -m benchmarks.decisions`` choices with
the fastest way, ``python -m benchmarks.recommendations`` what ``dr.explain`` recommends with the fastest of what it compares.
Predictions are rough: a choice between two programs should ask for a clear difference.  Not seen are kernels that the
compiler does not fuse since it would write them out too often (nested pads, long programs without loops).

Planners compare prices at the margin (:func:`margins`), which do not depend on a calibration.  Plans that exist do not see a change of
constants within a process.

Source: the shape of the formula is the roofline's [WilliamsEtAl2009], with launches; the rules of fusion are XLA's.

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

__all__ = ["Constants", "Prediction", "constants", "predict"]
