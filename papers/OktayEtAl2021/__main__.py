"""``python -m papers.OktayEtAl2021``."""

from __future__ import annotations

import sys

from papers.OktayEtAl2021.run import PAPER, run
from papers.reproduction import main

if __name__ == "__main__":
    sys.exit(main(PAPER, run))
