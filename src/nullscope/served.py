"""A detector as MLflow's own model: the bytes of images in, scores out.

MLflow runs this file where it loads the model (*models from code*), so nothing is unpickled. Beside it lies the code that a
prediction needs; its scores are those of `nullscope predict`.
"""

from __future__ import annotations

import mlflow
import pandas as pd

COLUMNS = ["logit", "score", "probability", "answer", "fake", "refused"]


class Served(mlflow.pyfunc.PythonModel):
    """A `nullscope.prediction.Judge` behind MLflow's interface."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        """Load the model folder that was logged; once, and again in every worker."""
        from nullscope.prediction import Judge

        self.judge = Judge(context.artifacts["model"])

    def predict(self, context: mlflow.pyfunc.PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        """Return a row per image of the column ``image`` (bytes): `COLUMNS`.

        An image that cannot be judged has the reason in ``refused`` and nothing else. ``fake`` is empty where a score is no
        verdict (`prediction.Verdict`).
        """
        verdicts = self.judge.predict_many([bytes(data) for data in model_input["image"]])
        rows = [dict.fromkeys(COLUMNS) | verdict.as_dict() for verdict in verdicts]
        return pd.DataFrame(rows, columns=COLUMNS, dtype=object)  # as a float, what is not there would be NaN: no JSON


mlflow.models.set_model(Served())
