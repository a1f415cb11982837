"""The graph that operations record and backward visits: tensors, nodes, views, changes in place, the backward pass, drawings.

Imports ``core``.  Start with ``tensor.py`` and ``node.py``, then ``recording.py``, which evaluates and records an operation, and
``backward_pass.py``, which visits the nodes in reverse topological order.
"""

from dualrev.eager.graph.drawing import Picture as Picture
from dualrev.eager.graph.drawing import draw as draw
