"""`python -m flaxgen` is the command `flaxgen`."""

import sys

from flaxgen.cli import main

sys.exit(main())
