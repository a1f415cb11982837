"""``python -m papers.NaNsInLoops``."""

from __future__ import annotations

import sys

from papers.NaNsInLoops.run import PAPER, run
from papers.reproduction import main

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
