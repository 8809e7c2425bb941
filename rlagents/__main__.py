"""`python -m rlagents` is the program `rlagents`."""

import sys

from rlagents.cli import main

sys.exit(main())
