"""``python -m papers.ChenEtAl2016``."""

from __future__ import annotations

import sys

from papers.ChenEtAl2016.run import PAPER, run
from papers.reproduction import main

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
