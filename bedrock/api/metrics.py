"""What the API counts, for Prometheus. One registry for each API, so that several may live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class ApiMetrics:
    """The API's metrics; ``docs/reference/metrics.md`` lists them. None is labelled by session: that would grow."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions_created = Counter("bedrock_sessions_created_total", "Sessions accepted.", registry=self.registry)
        self.sessions_ended = Counter(
            "bedrock_sessions_ended_total", "Sessions that ended.", ["status", "reason"], registry=self.registry
        )
        self.traces = Counter(
            "bedrock_traces_total", "Verdicts on the traces of ended sessions.", ["state"], registry=self.registry
        )
        self.polls = Counter("bedrock_polls_total", "Packets received from nodes.", registry=self.registry)
        self.packets_refused = Counter(
            "bedrock_packets_refused_total", "Packets that could not be used.", ["cause"], registry=self.registry
        )
        self.dispatch_seconds = Histogram(
            "bedrock_dispatch_seconds",
            "From an accepted session, or its assignment, to its node being told.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10, 60),
            registry=self.registry,
        )
        self.upload_bytes = Counter("bedrock_upload_bytes_total", "Bytes of files stored.", registry=self.registry)
        self.uploads_failed = Counter(
            "bedrock_uploads_failed_total", "Uploads that were refused.", registry=self.registry
        )
        self.nodes_alive = Gauge("bedrock_nodes_alive", "Nodes heard of lately.", registry=self.registry)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
