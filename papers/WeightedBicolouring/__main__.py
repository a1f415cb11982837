"""``python -m papers.WeightedBicolouring``."""

from __future__ import annotations

import sys

from papers.reproduction import main
from papers.WeightedBicolouring.run import PAPER, run

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
