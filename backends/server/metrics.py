"""What /metrics tells, in Prometheus' text format."""

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backends.server.records import Records

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, records: Records) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(records))
        self.requests = Counter(
            "kaarel_bet_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "kaarel_bet_request_seconds",
            "Time from a request's arrival to its answer's last byte",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.generated = Counter(
            "kaarel_bet_generated_tokens", "Tokens generated", registry=self._registry
        )
        self.prompted = Counter(
            "kaarel_bet_prompt_tokens", "Tokens of prompts", registry=self._registry
        )
        self.scored = Counter(
            "kaarel_bet_scored_tokens",
            "Tokens of prompts that were given log-probabilities",
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of them, as a scraper reads it."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    """Jobs by status, counted when asked."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        statuses = Tally(record.job.status for record in self._records.jobs.all())
        jobs = GaugeMetricFamily("kaarel_bet_jobs", "Fine-tuning jobs", labels=["status"])
        for status, count in statuses.items():
            jobs.add_metric([status], count)
        yield jobs
        waiting = statuses["validating_files"] + statuses["queued"]
        yield GaugeMetricFamily("kaarel_bet_queue_length", "Jobs that wait", value=waiting)
