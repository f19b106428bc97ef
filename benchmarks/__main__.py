"""`python -m benchmarks fast` or `all`."""

import sys

from benchmarks.run import main

sys.exit(main())
