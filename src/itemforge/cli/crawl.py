"""`itemforge data crawl`: pictures and what is said of them, from a wiki."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from itemforge.cli.steps import stages_shown
from itemforge.errors import ConfigurationError
from itemforge.settings import TrustSettings, load

_UNITS = {"": 10**6, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
INTERRUPTED = 130


class WayName(StrEnum):
    """`auto` takes the first of the others that gives pictures."""

    auto = "auto"
    api = "api"
    html = "html"
    browser = "browser"


def crawl(
    url: Annotated[str, typer.Argument(help="a page, a category, or the root of a wiki: all its pictures")],
    out: Annotated[Path, typer.Option(help="folder of the dataset; an interrupted run goes on there")],
    contact: Annotated[
        str | None, typer.Option(help="required: your e-mail address or page, which the wiki sees")
    ] = None,
    way: Annotated[WayName, typer.Option(help="how the pictures are found")] = WayName.auto,
    delay: Annotated[float, typer.Option(min=0, max=3600, help="seconds between two requests")] = 1.0,
    backoff: Annotated[
        float, typer.Option(min=0, max=600, help="seconds before a second try; doubles")
    ] = 1.0,
    max_wait: Annotated[
        float,
        typer.Option(min=0, max=86400, help="seconds that a server may ask to wait; longer ends its part"),
    ] = 60.0,
    max_file: Annotated[str, typer.Option(help="largest picture, such as 50MB or 800kB")] = "50MB",
    max_total: Annotated[str, typer.Option(help="largest size of all pictures together")] = "5GB",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="reach this machine and private networks too")
    ] = False,
) -> None:
    """Fetch the pictures of a wiki, with names, sections, uploaders and licences.

    Repeat the command to go on after an interruption, to retry what failed, and to get what is new.

    itemforge data crawl https://NAME.fandom.com/wiki/Category:Items --out items --contact you@example.org
    """
    from itemforge.dataset.crawl.fetching import Limits
    from itemforge.dataset.crawl.run import Means
    from itemforge.dataset.crawl.run import crawl as run
    from itemforge.dataset.crawl.visitor import Manners, check_contact
    from itemforge.dataset.crawl.wiki import clean

    manners = Manners(
        check_contact(contact), delay, backoff=backoff, longest_wait=max_wait, allow_private=allow_private
    )
    limits = Limits(_bytes(max_file, "--max-file"), _bytes(max_total, "--max-total"))
    try:
        with stages_shown() as tell:
            means = Means(
                tell,
                lambda text: typer.echo(clean(text, 1000), err=True),
                ca_file=load(TrustSettings).ca_file,
            )
            report = run(url, out, manners, limits, way.value, means)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what has arrived is in {out}, and the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(
        f"{report.found} pictures found by {report.way}, {report.fetched} new; {out} has {report.pictures}"
    )
    for reason, count in report.failures.most_common():
        typer.echo(f"not fetched, {reason}: {count}")
    if report.failures:
        typer.echo("repeat the command to try these again")
    if report.stopped:
        typer.echo(f"stopped: {report.stopped}", err=True)
        raise typer.Exit(1)


def _bytes(text: str, option: str) -> int:
    """A size with its unit; without one, it is megabytes."""
    found = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([kmgt]?b|)\s*", text.lower())
    if found is None or not (size := int(float(found[1]) * _UNITS[found[2]])):
        raise ConfigurationError(f"{option} {text} is no size; write it as 50MB, 800kB or 5GB")
    return size
