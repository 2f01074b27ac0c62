"""Examples of the OpenAPI document: values that the documentation fills in, and that are accepted as they are.

They tell one story, which a test runs: the tenant ``acme`` trains ``tickets`` on ``tickets_2026`` and serves it.
"""

from __future__ import annotations

from typing import Any

PATH: dict[str, Any] = {
    "tenant": "acme",
    "dataset": "tickets_2026",
    "number": 1,
    "model": "tickets",
    "version": "1",
    "other": "2",
    "environment": "production",
    "gate": "accurate",
    "hold": "audit",
    "key": "0123456789abcdef",
    "run": "run_0123456789abcdef",
    "job": "job_0123456789abcdef",
    "batch": "batch_0123456789abcdef",
    "schedule": "nightly",
    "request": "019ac0de00000123456789abcdef0123",
    "name": "notes.txt",
}
"""Parameter of a path → a value."""

_WHY = {"reason": "Better on last week's tickets."}
_TRAINING = {"target": "category", "hyperparameters": {"algorithm": "logistic_regression"}}

_TRAINING_ON_THE_NEWEST = {
    "kind": "train",
    "model_id": "tickets",
    "training": {"dataset": "tickets_2026", **_TRAINING},
}
BODIES: dict[str, dict[str, Any]] = {
    "tenants.create": {"tenant_ids": ["acme"]},
    "tenants.update": {"self_test_rows": "training"},
    "placements.set": {"is_dedicated": True, "min_replicas": 1, "max_replicas": 4, "target_ongoing": 32},
    "placements.set_shared_cell": {"min_replicas": 2, "max_replicas": 6, "target_ongoing": 32},
    "keys.create": {"name": "web shop", "scopes": ["predict", "read"]},
    "platform_keys.create": {"name": "monitoring", "scopes": ["read"]},
    "jobs.submit": {"kind": "train", "model_id": "tickets", "training": {"dataset": "tickets_2026@1", **_TRAINING}},
    "jobs.plan": {"model_id": "tickets", "training": {"dataset": "tickets_2026@1", **_TRAINING}, "cpus": 4},
    "job_batches.submit": _TRAINING_ON_THE_NEWEST,
    "schedules.create": {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "job": _TRAINING_ON_THE_NEWEST,
    },
    "jobs.set_quota": {"weight": 2, "max_running": 4},
    "models.check_training": _TRAINING,
    "versions.update": {"tags": {"ticket": "ML-12"}, "metadata": {"author": "Ada"}},
    "holds.place": {"reason": "The audit of 2026 refers to it."},
    "environments.promote": {"version": "1", **_WHY},
    "environments.rollback": {"reason": "Its answers are worse."},
    "environments.withdraw": {"reason": "The product ended."},
    "environments.approve": {"version": "2", "reason": "I have read the comparison."},
    "rollouts.start": {"version": "2", "percent": 10, **_WHY},
    "rollouts.step": {"percent": 50},
    "rollouts.finish": _WHY,
    "rollouts.abort": {"reason": "Its answers are worse."},
    "rollouts.shadow": {"version": "2"},
    "rollouts.unshadow": {"reason": "Enough was seen."},
    "gates.set": {"kind": "min_metric", "settings": {"metric": "accuracy", "value": 0.2}},
    "runs.start": {"model_id": "tickets", "kind": "train", "parameters": {"C": 0.5}, "tags": {"team": "support"}},
    "runs.tag": {"tags": {"team": "support", "draft": None}},
    "runs.log_metrics": {"metrics": ["loss"], "steps": [0, 1, 2], "values": [0.9, 0.5, 0.4]},
    "runs.end": {"status": "finished"},
    "predictions.label": {"model_id": "tickets", "row": 0, "label": "billing"},
    "predictions.set_policy": {"policy": "inputs"},
    "tenants.set_quota": {"requests_per_s": 100, "rows_per_s": 5000},
}
"""Operation → a body, where it is JSON."""
