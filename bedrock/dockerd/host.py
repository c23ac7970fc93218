"""What the sessions of one node share: the parts that serve them, and how the node is set up."""

from __future__ import annotations

import msgspec

from bedrock.concurrency.inotify import Inotify
from bedrock.dockerd.containers import ForeignNeeds
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.host_tracer import HostTracer
from bedrock.dockerd.image_files import ImageListings
from bedrock.dockerd.images import Images
from bedrock.dockerd.ledger import Ledger
from bedrock.dockerd.output import Outputs
from bedrock.dockerd.session_tracing import ForeignTracing, HostTracing, NoTracing, SessionTracing
from bedrock.dockerd.tracing import TracerImage
from bedrock.dockerd.watch import ContainerWatch
from bedrock.model import NodeName, TraceMode, TraceSpec
from bedrock.volume import OrderRecord, SessionVolume


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What every session of this host shares."""

    node: NodeName
    engine: Engine
    engine_version: str
    kernel: str
    images: Images
    listings: ImageListings
    watch: ContainerWatch
    inotify: Inotify
    tracer: TracerImage
    host_tracer: HostTracer | None  # None where the tracer is of another make
    ledger: Ledger
    stop_grace_s: float
    engine_timeout_s: float
    tracer_timeout_s: float
    tracer_ring_bytes: int
    outputs: Outputs
    max_output: int  # where a session names none
    tracing: TraceSpec  # what is used where a session does not say
    foreign: ForeignNeeds
    foreign_delay_s: float

    def tracing_of(self, wanted: TraceSpec) -> TraceSpec:
        """How a session is traced: as it wants, and where it does not say as this node is set up."""
        return msgspec.structs.replace(
            wanted,
            mode=wanted.mode or self.tracing.mode,
            max_size=self.tracing.max_size if wanted.max_size is None else wanted.max_size,
        )

    def trace(self, record: OrderRecord, volume: SessionVolume) -> SessionTracing:
        """What traces a session."""
        if record.order.trace.mode is TraceMode.OFF:
            return NoTracing(self.engine, record, volume)
        if self.host_tracer is not None:
            return HostTracing(
                self.host_tracer, record, volume, self.inotify, ring_bytes=self.tracer_ring_bytes,
                drain_timeout_s=self.tracer_timeout_s,
            )  # fmt: skip
        return ForeignTracing(
            self.engine, self.watch, self.tracer.info, record, volume, inotify=self.inotify, needs=self.foreign,
            ready_delay_s=self.foreign_delay_s, drain_timeout_s=self.tracer_timeout_s,
        )  # fmt: skip
