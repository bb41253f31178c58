"""`python -m miras`, the same as `miras`."""

import sys

from miras.cli import main

if __name__ == "__main__":
    sys.exit(main())
