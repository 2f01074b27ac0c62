"""Typed clients of both planes: ``MLClient``, and ``AsyncMLClient`` whose methods are awaited.

>>> client = MLClient("http://127.0.0.1:8000", api_key="mlk_…", tenant_id="acme")  # doctest: +SKIP
>>> client.predict("tickets", [{"subject": "Login fails"}]).predictions            # doctest: +SKIP
['account']
>>> [model.model_id for model in client.models.list()]                             # doctest: +SKIP
['tickets']
"""

from ml_core.client.clients import AsyncMLClient, ExplanationResult, MLClient, PredictionResult

__all__ = ["AsyncMLClient", "ExplanationResult", "MLClient", "PredictionResult"]
