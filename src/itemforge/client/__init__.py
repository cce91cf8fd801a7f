"""The typed Python client of the gateway: `Client` blocks, `AsyncClient` is awaited."""

from itemforge.client.aio import AsyncClient
from itemforge.client.answers import Generation, OutputFile, Page, Picture, Progress, Style
from itemforge.client.batches import Batch
from itemforge.client.errors import (
    GenerationFailed,
    NotAllowed,
    NotFound,
    RateLimited,
    WaitTimeout,
)
from itemforge.client.following import Event, PreviewEvent, ProgressEvent, StateEvent
from itemforge.client.sync import Client
from itemforge.client.trying import Retries
from itemforge.contract import Output, Status
from itemforge.errors import GatewayRefused, GatewayUnavailable

__all__ = [
    "AsyncClient",
    "Batch",
    "Client",
    "Event",
    "GatewayRefused",
    "GatewayUnavailable",
    "Generation",
    "GenerationFailed",
    "NotAllowed",
    "NotFound",
    "Output",
    "OutputFile",
    "Page",
    "Picture",
    "PreviewEvent",
    "Progress",
    "ProgressEvent",
    "RateLimited",
    "Retries",
    "StateEvent",
    "Status",
    "Style",
    "WaitTimeout",
]
