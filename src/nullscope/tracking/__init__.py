"""MLflow, where the results of the pipeline are published. The only room that imports it.

The record is what DVC keeps (``models/``, ``metrics/``); no stage reads MLflow. Importing this package is cheap: MLflow itself
takes more than a second and is imported by the first call that needs it. `tracking.registry` is for whoever publishes: it
compares detectors, and what does that takes another second to import.
"""

from nullscope.tracking.address import TrackingError, tracking_uri
from nullscope.tracking.publishing import Row, publish
from nullscope.tracking.store import check_store, viewer
from nullscope.tracking.training import Recorder, live

__all__ = ["Recorder", "Row", "TrackingError", "check_store", "live", "publish", "tracking_uri", "viewer"]
