"""``python -m wsev`` is the command ``wsev``."""

import sys

from wsev.cli import main

if __name__ == "__main__":
    sys.exit(main())
