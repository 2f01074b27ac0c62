"""Who gets the processor where a training runs beside the replicas."""

from __future__ import annotations

import os

from ml_core.cli.console import in_background
from ml_core.platform.processes import find_marked


def test_serving_comes_before_a_training(platform):
    """Replicas and the ingress run at the priority of the platform's owner, `mlcore train` at a lower one."""
    state = platform.local.state
    serving = [
        process.nice()
        for process in find_marked(platform.settings.platform.home, state.session_id)
        if process.name() == "haproxy" or process.name().startswith("ray::ServeReplica")
    ]
    assert len(serving) == 3
    with in_background():
        training = os.getpriority(os.PRIO_PROCESS, 0)
    assert max(serving) < training
