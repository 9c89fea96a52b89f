"""What a training costs its machine: MLflow's own monitors, read by the thread that sends the losses.

MLflow's `SystemMetricsMonitor` would start a thread and open a store of its own, and not keep its failures from the training.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nullscope.tracking.facts import SYSTEM

if TYPE_CHECKING:
    from mlflow.entities import Metric

EVERY_S = 10.0  # between two samples, as MLflow's own


class System:
    """Samples of CPU, memory, disk and network, and of the GPUs where there are any; nothing where a monitor fails."""

    def __init__(self) -> None:
        self._monitors: list[Any] | None = None  # made by the first sample: importing them takes MLflow
        self._next_s, self._step = 0.0, 0

    def sample(self) -> list[Metric]:
        """Return the numbers of now, nothing if the last ones are younger than `EVERY_S`."""
        from mlflow.entities import Metric

        if time.monotonic() < self._next_s:
            return []
        self._next_s = time.monotonic() + EVERY_S
        now, found = time.time_ns() // 1_000_000, {}
        for monitor in self._started():
            try:
                monitor.collect_metrics()
                found |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            except Exception:  # a machine that hides a number from us; a training must not end for it
                continue
        self._step += 1
        return [Metric(SYSTEM + name, float(value), now, self._step - 1) for name, value in found.items()]

    def _started(self) -> list[Any]:
        if self._monitors is None:
            self._monitors = _monitors()
        return self._monitors


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        try:
            monitors.append(kind())
        except Exception:  # no GPU, or no library to ask it
            continue
    return monitors
