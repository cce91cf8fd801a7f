"""A plain gateway written as the original one is, to measure ours against.

One row is committed, then one message is published inside the request: sync routes in FastAPI's thread
pool, SQLAlchemy with psycopg2, one pika BlockingConnection with publisher confirms and persistent
messages. The original shares that connection between threads without a lock, which pika does not allow; here a
lock makes it work at all. There are no log lines, checks, styles or events.

    DATABASE_URL=postgresql://… ITEMFORGE_AMQP_URL=amqp://… python bench/seed_gateway.py --port 8001
"""

import argparse
import json
import os
import threading
import uuid
from datetime import UTC, datetime

import pika
import uvicorn
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import DateTime, String, Text, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

QUEUE = "image_generation_queue"


class Base(DeclarativeBase):
    pass


class Generation(Base):
    __tablename__ = "seed_requests"

    request_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    prompt: Mapped[str] = mapped_column(Text)
    params: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    image_url: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Params(BaseModel):
    prompt: str
    negative_prompt: str = ""
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    seed: int = 50


class Publisher:
    """One connection for all threads, one of them at a time."""

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
        self._channel.queue_declare(QUEUE, durable=True)
        self._channel.confirm_delivery()

    def publish(self, body: bytes) -> None:
        with self._lock:
            self._channel.basic_publish(
                "", QUEUE, body, pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
            )


def create_app(database_url: str, amqp_url: str) -> FastAPI:
    engine = create_engine(database_url.replace("+asyncpg", "+psycopg2"), pool_size=20, max_overflow=20)
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    publisher = Publisher(amqp_url)
    app = FastAPI()

    def session():  # type: ignore[no-untyped-def]
        with sessions() as opened:
            yield opened

    @app.post("/generate", status_code=202)
    def generate(params: Params, db: Session = Depends(session)) -> dict[str, str]:
        request_id = str(uuid.uuid4())
        db.add(
            Generation(
                request_id=request_id,
                prompt=params.prompt,
                params=params.model_dump_json(),
                status="Pending",
                created_at=datetime.now(UTC),
            )
        )
        db.commit()
        message = {"request_id": request_id, "params": params.model_dump()}
        publisher.publish(json.dumps(message).encode())
        return {"request_id": request_id}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = create_app(os.environ["DATABASE_URL"], os.environ["ITEMFORGE_AMQP_URL"])
    uvicorn.run(app, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
