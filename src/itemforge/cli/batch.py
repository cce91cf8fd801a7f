"""`itemforge batch`: a list of things, drawn in one style, as files in a folder."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from itemforge.cli.batch_folder import BatchFolder, State, Wanted, reason
from itemforge.client import Client, GatewayUnavailable, NotFound, batches
from itemforge.client.batches import Batch, Part, Thing
from itemforge.contract import Output, Status
from itemforge.errors import InvalidInput, ItemForgeError
from itemforge.things import MAX_REQUESTS, read_things

INTERRUPTED = 130
#: Seconds between two looks, and for how long the gateway may be away between them.
_LOOK, _PATIENCE = 1.0, 600.0
#: Pictures that are fetched at a time.
_AT_ONCE = 4
#: Bytes of a list, and failures that are told.
_MOST_BYTES, _TOLD = 2_000_000, 20

Told = Callable[[Batch, int], None]


def batch(
    out: Annotated[
        Path, typer.Option(help="Folder for pictures and manifest; a broken-off run goes on there.")
    ],
    things: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LIST]", help="Things, one a line, or CSV; left out: go on with what is in --out."
        ),
    ] = None,
    style: Annotated[str | None, typer.Option(help="Style, or style@version.")] = None,
    variations: Annotated[int, typer.Option(min=1, max=16, help="Of each thing.")] = 4,
    name: Annotated[
        str | None, typer.Option(help="What the batch is called; default: the file's name.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 150.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, 0 to 30.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="ddim, dpmpp_2m_karras or euler.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of each thing's first variation; drawn when absent.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")] = None,
    background: Annotated[str | None, typer.Option(help="white or transparent: cut out.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the files in pixels, 64 to 1024.")] = None,
    trim: Annotated[bool, typer.Option("--trim", help="Cut down to the item, and centre it.")] = False,
    webp: Annotated[bool, typer.Option("--webp", help="WebP files instead of PNG.")] = False,
    approve_all: Annotated[
        bool, typer.Option("--approve-all", help="Approve what is drawn, for the page's export.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel what is open of the batch in --out.")
    ] = False,
    url: Annotated[str | None, typer.Option("--url", help="The gateway's address (API_GATEWAY_URL).")] = None,
) -> None:
    """Draw a list of things through a running gateway, and fetch each picture as it ends.

    Repeat the command to go on after an interruption: nothing is asked for twice, nothing fetched twice. The exit
    code is 1 when a picture failed.

    itemforge batch items.csv --style openmoji --out items
    """
    body = None
    if things is not None:
        shared = {
            "style": style,
            "negative_prompt": negative,
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "scheduler": scheduler,
            "seed": None if seed is None else str(seed),
            "width": width,
            "height": height,
        }
        body = _body(things, variations, name) | {k: v for k, v in shared.items() if v is not None}
    folder = BatchFolder(out)
    state = folder.open(body, _output(background, size, trim, webp))
    with Client.from_environment(url) as client:
        try:
            if state.batch is None:
                made = client.send(batches.submit(state.body, state.key))
                state = folder.keep(state.model_copy(update={"batch": made.id}))
            if cancel:
                client.send(batches.cancel(_id(state)))
            failures = _follow(client, folder, state, approve_all=approve_all)
        except NotFound as error:
            raise InvalidInput(
                f"the gateway knows no batch {state.batch}: {error}; is API_GATEWAY_URL the one that it was sent to?"
            ) from None
        except KeyboardInterrupt:
            typer.echo(_left(out, state), err=True)
            raise typer.Exit(INTERRUPTED) from None
    for each in failures[:_TOLD]:
        typer.echo(f"{each.title}: {reason(each.cell)}", err=True)
    if failures:
        missing = "1 picture is" if len(failures) == 1 else f"{len(failures)} pictures are"
        typer.echo(f"{missing} missing; {out / 'manifest.json'} says why", err=True)
        raise typer.Exit(1)
    typer.echo(str(out))


def _left(out: Path, state: State) -> str:
    if state.batch is None:
        return f"interrupted; the same command goes on: itemforge batch --out {out}"
    return (
        f"interrupted; the batch {state.batch} goes on drawing. To fetch the rest: itemforge batch --out {out}; "
        f"to end it: itemforge batch --out {out} --cancel"
    )


def _id(state: State) -> str:
    assert state.batch is not None  # noqa: S101  # submitted
    return state.batch


def _body(path: Path, variations: int, name: str | None) -> dict[str, Any]:
    """What a list asks for.

    Raises:
        InvalidInput: it cannot be read; every line that is wrong is told.
    """
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"{path} has more than {_MOST_BYTES // 10**6} MB; split it")
        listing = read_things(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8; save it so (in spreadsheets: CSV UTF-8)") from None
    if listing.problems:
        raise InvalidInput("\n  ".join([f"{path} cannot be read:", *map(str, listing.problems)]))
    for note in listing.notes[:_TOLD]:
        typer.echo(f"{path}: {note}", err=True)
    if (count := listing.requests(variations)) > MAX_REQUESTS:
        raise InvalidInput(f"{path} makes {count} pictures, and a batch has at most {MAX_REQUESTS}; split it")
    items = [thing.model_dump(mode="json", exclude_none=True) for thing in listing.things]
    return {"items": items, "variations": variations, "name": (name or path.stem)[:200]}


def _output(background: str | None, size: int | None, trim: bool, webp: bool) -> Output | None:
    asked = {"background": background, "size": size, "trim": trim or None, "format": "webp" if webp else None}
    given = {key: value for key, value in asked.items() if value is not None}
    try:
        return Output.model_validate(given) if given else None
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"--{first['loc'][0] if first['loc'] else 'size'}: {first['msg']}") from None


def _follow(client: Client, folder: BatchFolder, state: State, *, approve_all: bool) -> list[Wanted]:
    """Fetch pictures as they end, until nothing is open; what is missing then."""
    here = folder.here()
    seen: Batch | None = None
    with _shown() as show:
        while True:
            now = _patient(lambda: client.send(batches.look(_id(state), limit=1)))
            if seen is None or now.counts != seen.counts or now.done:
                now, things = _patient(lambda: _whole(client, _id(state)))
                wanted = folder.wanted(things, state.output)
                try:
                    _patient(partial(_fetch, client, folder, state.output, wanted, here))
                finally:
                    folder.tell(now, wanted, here)
                seen = now
            show(seen, len(here))
            if seen.done:
                break
            time.sleep(_LOOK)
    if approve_all:
        client.send(batches.judge(_id(state), "approved"))
        now, things = _whole(client, _id(state))
        wanted = folder.wanted(things, state.output)
        folder.tell(now, wanted, here)
    return [each for each in wanted if here.get(each.file) != each.cell.id]


def _patient(call: Callable[[], Any]) -> Any:
    """The call's answer, asked for again while the gateway is away.

    Raises:
        GatewayUnavailable: it was away for too long.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except GatewayUnavailable as error:
            if time.monotonic() > until:
                raise
            typer.echo(f"{error}; trying again", err=True)
            time.sleep(5 * _LOOK)


def _whole(client: Client, batch_id: str) -> tuple[Part, list[Thing]]:
    part = client.send(batches.look(batch_id))
    things = list(part.items)
    following = part.next
    while following is not None:
        more = client.send(batches.look(batch_id, following))
        things += more.items
        following = more.next
    return part, things


def _fetch(
    client: Client, folder: BatchFolder, output: Output | None, wanted: Sequence[Wanted], here: dict[str, str]
) -> None:
    """Download what is drawn and not here; one that cannot be had stays missing.

    Raises:
        GatewayUnavailable: some are for another try.
        InvalidInput: the folder cannot be written.
    """
    missing = [
        each
        for each in wanted
        if each.cell.status is Status.COMPLETED and here.get(each.file) != each.cell.id
    ]

    def fetch(each: Wanted) -> None:
        try:
            client.download(each.cell.id, folder.path / each.file, output=output)
        except GatewayUnavailable:
            raise
        except OSError as error:
            raise InvalidInput(f"{folder.path / each.file} cannot be written: {error.strerror}") from None
        except ItemForgeError as error:
            typer.echo(f"{each.title}: {error}", err=True)
            return
        here[each.file] = each.cell.id

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for done in [pool.submit(fetch, each) for each in missing]:
                done.result()
        finally:  # after an error or an interruption, what is not begun is for the next run
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _shown() -> Iterator[Told]:
    """Gives what is told how many pictures are here: a bar on a terminal, lines elsewhere. On standard error."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        last = ""

        def line(batch: Batch, here: int) -> None:
            nonlocal last
            if (text := f"{batch.name}: {here} of {batch.size} pictures are here{_bad(batch)}") != last:
                console.print(text, soft_wrap=True)
            last = text

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("waiting", total=None)
        yield lambda batch, here: bar.update(
            task, description=f"{batch.name}{_bad(batch)}", completed=here, total=batch.size
        )


def _bad(batch: Batch) -> str:
    failed = batch.counts.status.get(Status.FAILED, 0)
    return f", {failed} failed" if failed else ""
