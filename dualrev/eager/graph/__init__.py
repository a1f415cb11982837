"""The graph that operations record and backward visits: tensors, nodes, views, changes in place, the backward pass, drawings.

May import: ``core``.  Start reading at :mod:`dualrev.eager.graph.tensor` and ``node``, then ``recording``, which evaluates and records
an operation, and ``backward_pass``, which visits the nodes in reverse topological order.
"""

from dualrev.eager.graph.drawing import Picture as Picture
from dualrev.eager.graph.drawing import draw as draw
