"""The bodies of `/v1/webhooks`."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from itemforge.contract import Text
from itemforge.jobs.deliveries import State
from itemforge.jobs.webhooks import EventType


class WebhookRequest(BaseModel):
    """An address that is to hear of the ends of your generations."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"url": "https://example.com/hook", "events": ["generation.completed"]}]
        },
    )

    url: Text = Field(min_length=1, max_length=2000, description="https:// address of a public host")
    events: list[EventType] = Field(
        default_factory=lambda: list(EventType), min_length=1, max_length=10, description="default: all"
    )


class WebhookView(BaseModel):
    """`disabled_at` is set once the receiver answered 410: it hears nothing until it is enabled."""

    id: str
    url: str
    events: list[str]
    created_at: datetime
    old_secret_until: datetime | None = Field(description="until then the secret before signs besides")
    disabled_at: datetime | None
    disabled_reason: str | None


class WebhookWithSecret(WebhookView):
    """The secret is shown in this answer alone."""

    secret: str


class OwnSecret(BaseModel):
    """What signs the webhooks that generations bring along (their field `webhook`)."""

    secret: str
    old_secret_until: datetime | None = Field(description="until then the secret before signs besides")


class DeliveryView(BaseModel):
    """What a receiver is told once, in however many tries."""

    id: str = Field(description="the header `webhook-id`, the same at every try")
    webhook_id: str | None = Field(description="null: the generation's own `webhook`")
    generation_id: UUID | None = Field(description="null: a test")
    type: str
    url: str | None
    state: State
    attempts: int
    last_status_code: int | None
    error: str | None
    next_try_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class DeliveryPage(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    items: list[DeliveryView]
    next_cursor: str | None
