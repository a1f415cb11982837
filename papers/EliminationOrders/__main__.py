"""``python -m papers.EliminationOrders``."""

from __future__ import annotations

import sys

from papers.EliminationOrders.run import PAPER, run
from papers.reproduction import main

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
