"""Sends HTTP requests as fast as it is told, and says how long the answers took.

A process of its own, so that its work is not the gateway's. It speaks just enough HTTP/1.1 to cost little:

    python bench/load.py http://127.0.0.1:8000/v1/generations --body '{"prompt": "an apple"}' \\
        --concurrency 16 --seconds 10             # closed loop: each connection waits for its answer
    python bench/load.py … --rate 100 --seconds 10   # open loop: 100 requests a second, whatever comes back

Prints one JSON object. In the open loop a latency begins when the request was due, so a gateway that
falls behind cannot hide it.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """Latencies in milliseconds; `wrong` counts answers that were not 2xx."""

    sent: int
    wrong: int
    seconds: float
    per_second: float
    p50: float
    p99: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Connection:
    """One keep-alive connection that sends the same bytes again and again."""

    def __init__(self, url: str, body: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
        )
        self._bytes = (head + body).encode()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self) -> int:
        """The status of the answer; its body is read and dropped."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(self._bytes)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head[9:12])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def closed_loop(url: str, body: str, concurrency: int, seconds: float) -> Load:
    """`concurrency` connections, each with one request under way at any time."""
    took: list[float] = []
    wrong = 0
    began = time.perf_counter()

    async def one() -> None:
        nonlocal wrong
        connection = _Connection(url, body)
        while (at := time.perf_counter()) - began < seconds:
            wrong += await connection.send() // 100 != 2
            took.append((time.perf_counter() - at) * 1000)
        connection.close()

    await asyncio.gather(*(one() for _ in range(concurrency)))
    return _summary(took, wrong, time.perf_counter() - began)


async def open_loop(url: str, body: str, rate: float, seconds: float, most: int = 256) -> Load:
    """`rate` requests a second over at most `most` connections."""
    took: list[float] = []
    wrong = 0
    idle = [_Connection(url, body) for _ in range(most)]
    places = asyncio.Semaphore(most)
    began = time.perf_counter()

    async def one(due: float) -> None:
        nonlocal wrong
        async with places:
            connection = idle.pop()
            wrong += await connection.send() // 100 != 2
            idle.append(connection)
        took.append((time.perf_counter() - due) * 1000)

    tasks = []
    for place in range(int(rate * seconds)):
        due = began + place / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return _summary(took, wrong, time.perf_counter() - began)


def _summary(took: Sequence[float], wrong: int, seconds: float) -> Load:
    return Load(
        sent=len(took),
        wrong=wrong,
        seconds=round(seconds, 2),
        per_second=round(len(took) / seconds, 1),
        p50=round(percentile(took, 0.50), 2),
        p99=round(percentile(took, 0.99), 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--body", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rate", type=float, help="requests a second: open loop")
    options = parser.parse_args()
    if options.rate:
        work = open_loop(options.url, options.body, options.rate, options.seconds)
    else:
        work = closed_loop(options.url, options.body, options.concurrency, options.seconds)
    print(json.dumps(asdict(asyncio.run(work))))


if __name__ == "__main__":
    main()
