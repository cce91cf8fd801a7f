"""`itemforge data review`: look at pictures and captions, and decide."""

import getpass
import webbrowser
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from itemforge.errors import ConfigurationError


def review(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the dataset")],
    who: Annotated[
        str | None, typer.Option(help="name that is written beside your changes; default: the login name")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0 takes a free one")] = 0,
    token: Annotated[
        str | None,
        typer.Option(help="what others must know to come in; required with a --host of the network"),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
) -> None:
    """Review captions in the browser: edit, approve, reject, find and replace. Keys: ? on the page.

    Every change is saved at once, with who made it and when. Ctrl+C ends it.

    itemforge data review items
    """
    try:
        from itemforge.studio.review.app import create_app
        from itemforge.studio.review.guard import check_exposure
        from itemforge.studio.review.serving import address_of, listen, serve
    except ImportError as error:
        raise ConfigurationError(
            f"the page needs {error.name}: pip install 'itemforge[gateway,data]'"
        ) from None

    check_exposure(host, token)
    app = create_app(folder, _name(who), token)
    listener = listen(host, port)
    address = address_of(listener)

    def ready() -> None:
        typer.echo(f"the review of {folder} is at {address}; Ctrl+C ends it")
        if open_browser:
            webbrowser.open(f"{address}/?{urlencode({'token': token})}" if token else address)

    serve(app, listener, ready)


def _name(who: str | None) -> str:
    """The name beside changes; one line.

    Raises:
        ConfigurationError: it is none.
    """
    if who is None:
        try:
            who = getpass.getuser()
        except (OSError, KeyError):  # a container may run a user that has no name
            raise ConfigurationError("this user has no name; give one by --who") from None
    name = " ".join(who.split())
    if not name or len(name) > 80 or not name.isprintable():
        raise ConfigurationError("--who must be a name of at most 80 letters")
    return name
