"""Who gets the processor where a training runs beside the replicas."""

from __future__ import annotations

import os

from ml_core.cli.console import in_background


def test_serving_comes_before_a_training(platform):
    """Cells and the ingress have the priority of the platform's owner, the control API and a training lower ones."""
    found = platform.processes()
    serving = [
        process.nice()
        for process, words in found
        if words[0] == "haproxy" or "ray::ServeReplica:shared" in " ".join(words)
    ]
    (control,) = [process.nice() for process, words in found if "ray::ServeReplica:control:" in " ".join(words)]
    assert len(serving) == 3
    with in_background():
        training = os.getpriority(os.PRIO_PROCESS, 0)
    assert max(serving) < control < training
