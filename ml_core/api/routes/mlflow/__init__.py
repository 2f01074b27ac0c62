"""MLflow's REST protocol for tracking, over runs: what its Python client and its autologging call.

The rules stay those of the repositories; here is what they are called in the protocol. MLflow's model registry does not
belong here: versions are registered, promoted and served by the platform's own operations.
"""

from ml_core.api.routes.mlflow import absent, artifacts, experiments, models, runs
from ml_core.api.routes.mlflow.routing import router

absent.add_last()

__all__ = ["artifacts", "experiments", "models", "router", "runs"]
