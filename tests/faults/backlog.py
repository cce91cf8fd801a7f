"""Rows put into the database directly: of any owner, hundreds at once, on the queue already or not."""

import json
import uuid
from typing import Any

from stack import Stack

_INSERT = """
INSERT INTO requests
  (id, owner, status, prompt, style, params, attempt, charged, published_at, created_at, updated_at)
SELECT each->>'id', each->>'owner', 'Pending', each->'params'->>'prompt', 'plain@1', each->'params', 0, 0,
       CASE WHEN $2 THEN now() END, now() + n * interval '1 microsecond', now()
FROM json_array_elements($1::json) WITH ORDINALITY AS given(each, n)
""".replace("each->>'id'", "(each->>'id')::uuid")


def insert(
    stack: Stack, owner: str, count: int, prompt: str = "a key", *, published: bool = False, **params: Any
) -> list[str]:
    """`count` accepted requests in this order, with the seeds 1, 2, …; with `published` no relay takes them."""
    rows = [
        {
            "id": str(uuid.uuid4()),
            "owner": owner,
            "params": {"prompt": prompt, "num_inference_steps": 5, "num_images": 1, "seed": seed, **params},
        }
        for seed in range(1, count + 1)
    ]
    stack.query(_INSERT, json.dumps(rows), published)
    ids = [str(row["id"]) for row in rows]
    stack.accepted.update(ids)
    return ids


def body(stack: Stack, request_id: str) -> bytes:
    """The message of a request that has a row."""
    return json.dumps({"request_id": request_id, "params": stack.row(request_id).params}).encode()
