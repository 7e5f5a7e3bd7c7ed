"""The local server's metrics, by TensorFlow Serving's names, in Prometheus's text format.

Latencies are histograms in microseconds with TensorFlow Serving's buckets. Labels take few values: a
model that is not served counts under "".
"""

import re
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

__all__ = ["Metrics"]

_BUCKETS = [10 * 1.8**i for i in range(33)]  # up to 20 minutes
# Counters' names end in `_total` by Prometheus's convention, but TensorFlow Serving's do not.
_TOTAL = re.compile(rb"(?m)^((?:# (?:HELP|TYPE) )?:tensorflow:[\w:]+)_total\b")


class Metrics:
    """What is counted; each server has its own. `docs/serving.md` says what each metric means."""

    def __init__(self):
        prometheus_client.disable_created_metrics()
        self._registry = CollectorRegistry()
        serving, loading = ":tensorflow:serving:", ":tensorflow:cc:saved_model:"
        self.request_count = self._counter(
            f"{serving}request_count", "Requests", "model_name", "status"
        )
        self.request_latency = self._latency(
            f"{serving}request_latency", "Requests", "model_name", "API", "entrypoint"
        )
        self.runtime_latency = self._latency(
            f"{serving}runtime_latency", "Runs of a model", "model_name", "API", "runtime"
        )
        self.warmup_latency = self._latency(
            f"{serving}model_warmup_latency", "Warm-ups of a version", "model_path", "status"
        )
        self.load_attempt_count = self._counter(
            f"{loading}load_attempt_count", "Loads of a version", "model_path", "status"
        )
        self.load_latency = self._counter(
            f"{loading}load_latency", "Microseconds that loading took", "model_path"
        )
        ProcessCollector(registry=self._registry)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge that asks for its value when the page is read."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def page(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return _TOTAL.sub(rb"\1", prometheus_client.generate_latest(self._registry))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def _latency(self, name: str, what: str, *labels: str) -> Histogram:
        description = f"{what}, wall time in microseconds"
        return Histogram(name, description, labels, buckets=_BUCKETS, registry=self._registry)
