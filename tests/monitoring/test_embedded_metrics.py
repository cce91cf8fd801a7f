"""`itemforge up` is one process, and one scrape tells of gateway and worker."""

from pathlib import Path

import httpx
import pytest

from itemforge.client import Client
from itemforge.contract import Status
from polling import wait_until
from system.commands import Command


@pytest.mark.timeout(300)
def test_the_embedded_gateway_tells_of_its_worker_too(tmp_path: Path) -> None:
    with Command(
        tmp_path, "up", "--port", "0", "--home", str(tmp_path / "home"), ITEMFORGE_PRICE_PER_HOUR="0.5"
    ) as system:
        url = system.address()
        with Client(url) as client:
            request = client.submit("a red apple", num_inference_steps=1)
            wait_until(lambda: client.get(request.id).status is Status.COMPLETED, 120, every=0.2)

        def told() -> bool:
            lines = httpx.get(f"{url}/metrics").text.splitlines()
            return {
                'itemforge_jobs_total{outcome="completed",style="plain"} 1.0',
                'itemforge_worker_jobs_total{outcome="completed",style="plain"} 1.0',
                "itemforge_worker_steps_total 1.0",
                "itemforge_worker_price_per_hour 0.5",
            } <= set(lines) and any(
                line.startswith('itemforge_build_info{process="itemforge"') for line in lines
            )

        wait_until(told, 30, every=0.2)
        # One process has one registry: nothing is told twice.
        names = [
            line.split()[2]
            for line in httpx.get(f"{url}/metrics").text.splitlines()
            if line.startswith("# TYPE")
        ]
        assert len(names) == len(set(names))
