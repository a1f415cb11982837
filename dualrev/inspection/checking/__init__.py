"""Checks of a derivative, in words: ``dr.check(f)(*args)`` says which input, mode, line and operation is wrong, and why.

A check has phases, a file each: the function as a program (``subject``), its derivatives against finite differences and each other
(``derivatives``, ``differences``), the operation that is to blame (``locating``), decisions at the point (``decisions``), inputs
without derivative (``dependence``), rules of users (``custom_rules``), and the digits that single precision loses (``precision``).
Only ``decisions`` names primitives: it has a table of those that decide.
May import: ``functional`` and what is below.  Start reading at :mod:`dualrev.inspection.checking.api`, then ``derivatives``.
"""

from dualrev.inspection.checking.api import check as check
from dualrev.inspection.checking.report import CheckReport as CheckReport
from dualrev.inspection.checking.report import Finding as Finding
