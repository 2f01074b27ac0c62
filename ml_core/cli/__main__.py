"""``python -m ml_core.cli`` is ``mlcore``."""

from ml_core.cli.main import run

run()
