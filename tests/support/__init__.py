"""What several kinds of tests share. Test code only; nothing here is imported by the project."""

import os

# Set before scikit-learn loads OpenMP, whose threads spin by default while they wait for one another: where other
# programs want the same processors, a gradient boosting of a few rows then takes 20 s instead of 0.5 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
