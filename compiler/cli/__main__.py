"""``python -m compiler.cli``: the same as the command `kiln`."""

import sys

from compiler.cli import main

sys.exit(main())
