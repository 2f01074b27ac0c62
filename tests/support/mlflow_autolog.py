"""A training as its author wrote it for any MLflow server; run by ``mlflow_client.run_mlflow``."""

import json
import sys

import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

mlflow.set_experiment("Iris / first try")
mlflow.sklearn.autolog()
X, y = load_iris(return_X_y=True, as_frame=True)
with mlflow.start_run(run_name="grid", tags={"team": "plants"}) as run:
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0, 10.0]}, cv=3).fit(X, y)
score = search.score(X, y)  # is logged to the run, which has ended

best_first = mlflow.search_runs(
    filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'", order_by=["metrics.mean_test_score DESC"]
)
files = mlflow.artifacts.list_artifacts(run_id=run.info.run_id)
kept = mlflow.get_run(run.info.run_id)
model = mlflow.MlflowClient().get_logged_model(kept.outputs.model_outputs[0].model_id)
loaded = mlflow.sklearn.load_model(f"models:/{model.model_id}")
json.dump(
    {
        "run_id": run.info.run_id,
        "best_score": search.best_score_,
        "score": score,
        "children": [[row["params.C"], row["metrics.mean_test_score"]] for _, row in best_first.iterrows()],
        "files": [each.path for each in files],
        "datasets": [each.dataset.digest for each in kept.inputs.dataset_inputs],
        "is_loaded": bool((loaded.predict(X) == search.predict(X)).all()),
    },
    sys.stdout,
)
