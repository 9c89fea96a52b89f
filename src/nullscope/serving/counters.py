"""What the server has done, in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # upper ends of the histogram


class Counters:
    """Counts of requests, images and seconds; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[int] = Counter()  # by HTTP's status
        self._images: Counter[tuple[str, str]] = Counter()  # by model and what became of them
        self._within = [0] * (len(SECONDS) + 1)
        self._seconds = 0.0

    def request(self, status: int, seconds: float) -> None:
        """Count a request for scores."""
        with self._lock:
            self._requests[status] += 1
            self._within[bisect_left(SECONDS, seconds)] += 1
            self._seconds += seconds

    def image(self, model: str, outcome: str) -> None:
        """Count an image: ``generated``, ``real``, ``not sure``, ``no verdict`` or ``refused``."""
        with self._lock:
            self._images[model, outcome] += 1

    def text(self, waiting: int) -> str:
        """Return all counts; ``waiting``: images in the queue at this moment."""
        with self._lock:
            lines = _head("nullscope_requests_total", "counter", "Requests for scores, by HTTP status.")
            for status, count in sorted(self._requests.items()):
                lines.append(f'nullscope_requests_total{{status="{status}"}} {count}')
            lines += _head("nullscope_images_total", "counter", "Images, by model and answer.")
            for (model, answer), count in sorted(self._images.items()):
                lines.append(f'nullscope_images_total{{model="{_escaped(model)}",answer="{answer}"}} {count}')
            lines += _head("nullscope_request_seconds", "histogram", "Seconds from the first byte to the answer.")
            total = 0
            for end, count in zip((*SECONDS, "+Inf"), self._within, strict=True):
                total += count
                lines.append(f'nullscope_request_seconds_bucket{{le="{end}"}} {total}')
            lines += [f"nullscope_request_seconds_sum {self._seconds:.6f}", f"nullscope_request_seconds_count {total}"]
            lines += _head("nullscope_waiting_images", "gauge", "Images that wait.")
            return "\n".join([*lines, f"nullscope_waiting_images {waiting}", ""])


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
