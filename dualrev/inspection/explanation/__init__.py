"""What a derivative costs in each way that there is: :func:`explain`.

May import: ``functional``, ``sparse`` and what is below, and ``inspection.liveness``.  Start reading at
:mod:`dualrev.inspection.explanation.api`; the ways are in :mod:`~dualrev.inspection.explanation.candidates`.
"""

from dualrev.inspection.explanation.api import explain as explain
from dualrev.inspection.explanation.api import explained as explained
from dualrev.inspection.explanation.explanation import Explanation as Explanation
from dualrev.inspection.explanation.variants import Argument as Argument
from dualrev.inspection.explanation.variants import Line as Line
from dualrev.inspection.explanation.variants import Variant as Variant
