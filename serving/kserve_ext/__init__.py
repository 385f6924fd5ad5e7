"""What KServe 0.21 needs before it may face clients: each module says what upstream does, and what we do.

Import this package before anything of ``kserve``: KServe parses ``sys.argv`` while it is imported, and would
answer our own options' names.
"""

import sys

_argv = sys.argv
sys.argv = _argv[:1]
try:
    import kserve as kserve
finally:
    sys.argv = _argv
