"""`python -m miras`, the same as `miras`."""

import sys

from miras.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
