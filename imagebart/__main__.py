"""`python -m imagebart`"""

import sys

from imagebart.cli import main

sys.exit(main())
