"""`submit`, `jobs`, `cancel`: a gateway's client; `dead`: a look into the broker's dead queue."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from itemforge.client import Client, Generation
from itemforge.contract import REASON_HEADER, Status, readable_request_id
from itemforge.settings import BrokerSettings, load

Url = Annotated[str | None, typer.Option("--url", help="The gateway's address (API_GATEWAY_URL).")]


def submit(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    style: Annotated[str | None, typer.Option(help="Style, or style@version.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 150.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 0 to 30.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; drawn and recorded when absent.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, dpmpp_2m_karras or euler.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    num_images: Annotated[int | None, typer.Option(help="Images, 1 to 16.")] = None,
    out: Annotated[Path | None, typer.Option(help="Wait, and write the PNG here.")] = None,
    url: Url = None,
) -> None:
    """Send a prompt to a running gateway; with --out wait for the picture.

    Example: itemforge submit "a red apple" --steps 25 --out apple.png
    """
    with Client.from_environment(url) as client:
        generation = client.submit(
            prompt,
            style=style,
            negative_prompt=negative,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seed=None if seed is None else str(seed),
            scheduler=scheduler,
            width=width,
            height=height,
            num_images=num_images,
        )
        if out is None:
            typer.echo(generation.id)
            return
        done = _wait(client, generation)
        for n in range(len(done.images)):
            path = out if len(done.images) == 1 else out.with_name(f"{out.stem}-{n}{out.suffix}")
            typer.echo(str(client.download(done, path, n)))


def _wait(client: Client, generation: Generation) -> Generation:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    told: list[Status] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting", total=None)

        def show(now: Generation) -> None:
            if now.progress:
                bar.update(task, description="drawing", completed=now.progress.step, total=now.progress.steps)
            if not console.is_terminal and told[-1:] != [now.status]:
                told.append(now.status)
                console.print(f"{now.id} {now.status}", highlight=False)

        return client.wait(generation, on_progress=show)


def jobs(
    status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    style: Annotated[str | None, typer.Option(help="Only this style.")] = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=200)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    url: Url = None,
) -> None:
    """List requests, newest first."""
    with Client.from_environment(url) as client:
        page = client.page(status=status, style=style, limit=limit)
    if as_json:
        for job in page.items:
            typer.echo(job.model_dump_json(exclude_none=True))
        return
    table = Table("id", "status", "style", "prompt", "error or picture", box=None)
    for job in page.items:
        table.add_row(job.id, job.status, job.style or "", job.prompt[:50], job.error or job.image_url or "")
    # A pipe has no width: nothing may be cut there.
    console = Console()
    Console(width=None if console.is_terminal else 1000).print(table)


def cancel(
    request_id: Annotated[str, typer.Argument(help="The request's id.")],
    url: Url = None,
) -> None:
    """Cancel a request, waiting or running."""
    with Client.from_environment(url) as client:
        typer.echo(f"{request_id} {client.cancel(request_id).status}")


def dead(
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=1000)] = 50,
    purge: Annotated[bool, typer.Option("--purge", help="Throw them all away.")] = False,
) -> None:
    """Show the messages that nobody could serve, with the reason; one JSON object a line.

    A dead message's request is Failed; to try it again: POST /v1/generations/{id}/retry.
    """
    asyncio.run(_dead(load(BrokerSettings), limit, purge))


async def _dead(settings: BrokerSettings, limit: int, purge: bool) -> None:
    from itemforge.cli.broker import connected

    settings.require_amqp_url()
    async with connected(settings) as broker:
        if purge:
            typer.echo(f"{await broker.purge_dead()} messages thrown away")
            return
        for letter in await broker.dead_letters(limit):
            request_id = readable_request_id(letter.body)
            line = {
                "request_id": str(request_id) if request_id else None,
                "reason": letter.headers.get(REASON_HEADER),
                "body": letter.body[:2000].decode(errors="replace"),
            }
            typer.echo(json.dumps(line, ensure_ascii=False))
