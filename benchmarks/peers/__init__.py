"""Published schedulers, run beside ours in their own simulators."""

import os

# Threads of the linear algebra cost more than they give on matrices of a few dozen rows. Read when numpy is imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
