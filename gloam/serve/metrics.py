"""Figures for Prometheus: counts and times, never what was asked or by whom."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "method")
        self._requests = Counter(
            "gloam_requests_total", "Answers, by route, method and status.", (*labels, "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "gloam_request_seconds", "Time to answer.", labels, buckets=_BUCKETS, registry=self.registry
        )
        self._searches = Counter("gloam_searches_total", "Searches that were answered.", registry=self.registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer. Unknown paths and methods share one label each: strangers choose neither."""
        place = route or "other"
        word = method if method in ("GET", "POST", "DELETE", "HEAD") else "other"
        self._requests.labels(place, word, str(status)).inc()
        self._seconds.labels(place, word).observe(seconds)

    def searched(self) -> None:
        """Count one search."""
        self._searches.inc()

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a number that is read when it is asked for."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)
