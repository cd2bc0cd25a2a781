"""``python -m benchmarks.diagnosis.elsewhere``; what it does stands in `measure.py`."""

import sys

from benchmarks.diagnosis.elsewhere.measure import main

if __name__ == "__main__":
    sys.exit(main())
