"""``python -m gloam``: the command line."""

import sys

from gloam.cli.main import main

sys.exit(main())
