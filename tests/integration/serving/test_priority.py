"""Who gets the processor where a training runs beside the replicas."""

from __future__ import annotations

import os

from ml_core.cli.console import in_background
from ml_core.platform.processes import find_marked


def test_serving_comes_before_a_training(platform):
    """Cells and the ingress have the priority of the platform's owner, the control API and a training lower ones."""
    found = find_marked(platform.settings.platform.home, platform.local.state.session_id)
    titles = {process: " ".join([process.name(), *process.cmdline()]) for process in found}
    serving = [
        process.nice()
        for process, title in titles.items()
        if process.name() == "haproxy" or "ray::ServeReplica:shared" in title
    ]
    (control,) = [process.nice() for process, title in titles.items() if "ray::ServeReplica:control:" in title]
    assert len(serving) == 3
    with in_background():
        training = os.getpriority(os.PRIO_PROCESS, 0)
    assert max(serving) < control < training
