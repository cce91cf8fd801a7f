"""A worker as the original service is written: one message at a time, everything in a row.

    python bench/seed_worker.py --amqp URL --gateway URL --emulator URL --bucket NAME [--dtype float32]

It takes a message (pika, prefetch 1), says `processing`, draws with StableDiffusionPipeline, uploads, says
`Completed` with the address, acknowledges, and takes the next. It serves `itemforge gateway` as it would
its own, through PUT /update_db. The bench runs it beside ours; nothing else uses it.
"""

import argparse
import json
from io import BytesIO

import pika
import requests
import torch
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from pipeline import load_pipeline, one_step

QUEUE = "image_generation_queue"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("amqp", "gateway", "emulator", "bucket"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()

    pipeline = load_pipeline(getattr(torch, options.dtype))
    one_step(pipeline)  # the first call is slower: ours is warm too when it says that it is ready
    client = storage.Client(
        project="bench",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": options.emulator},
    )
    bucket = client.bucket(options.bucket)

    def tell(request_id: str, **values: str) -> None:
        answer = requests.put(f"{options.gateway}/update_db/{request_id}", json=values, timeout=30)
        answer.raise_for_status()

    def serve(channel, method, properties, body) -> None:  # type: ignore[no-untyped-def]
        message = json.loads(body)
        request_id, params = message["request_id"], message["params"]
        tell(request_id, status="processing")
        image = pipeline(
            params["prompt"],
            negative_prompt=params["negative_prompt"],
            num_inference_steps=params["num_inference_steps"],
            guidance_scale=params["guidance_scale"],
            generator=torch.Generator().manual_seed(params["seed"]),
        ).images[0]
        png = BytesIO()
        image.save(png, "PNG")
        blob = bucket.blob(f"generated/{request_id}.png")
        blob.upload_from_string(png.getvalue(), content_type="image/png")
        tell(request_id, status="Completed", image_url=f"{options.emulator}/{options.bucket}/{blob.name}")
        channel.basic_ack(method.delivery_tag)

    parameters = pika.URLParameters(options.amqp)
    parameters.heartbeat = 0  # nobody answers heartbeats while a picture is drawn
    channel = pika.BlockingConnection(parameters).channel()
    channel.queue_declare(QUEUE, durable=True)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(QUEUE, serve)
    print("ready", flush=True)
    channel.start_consuming()


if __name__ == "__main__":
    main()
