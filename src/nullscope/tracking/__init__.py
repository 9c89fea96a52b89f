"""MLflow: the mirror of the pipeline's results, and the only place of the project that imports it.

The record is what DVC keeps (``models/``, ``metrics/``); no stage reads MLflow. Importing this package is cheap: MLflow
itself, more than a second, is imported by the first call that needs it.
"""

from nullscope.tracking.address import TrackingError, tracking_uri
from nullscope.tracking.mirror import Row, publish
from nullscope.tracking.store import check_store, viewer
from nullscope.tracking.training import Recorder, live

__all__ = ["Recorder", "Row", "TrackingError", "check_store", "live", "publish", "tracking_uri", "viewer"]
