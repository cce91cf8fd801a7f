"""All commands in one place."""

from typing import Annotated

import typer

import itemforge
from itemforge.cli import data, db, demo, doctor, jobs, keys, models, serve, styles, train
from itemforge.cli.batch import batch
from itemforge.cli.cutout import cutout
from itemforge.cli.generate import generate
from itemforge.settings import LogSettings, load
from itemforge.telemetry.logs import setup_logs

app = typer.Typer(
    help="ItemForge: from a prompt to a 2D game item in a game's own art style.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"itemforge {itemforge.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # Commands that end by themselves speak for themselves; the serving ones set up their log anew.
    settings = load(LogSettings)
    quiet = settings if "log_level" in settings.model_fields_set else load(LogSettings, log_level="warning")
    setup_logs(quiet, "itemforge")


app.command()(serve.up)
app.command()(serve.gateway)
app.command()(serve.worker)
app.command()(demo.demo)
app.command()(generate)
app.command()(cutout)
app.command()(jobs.submit)
app.command()(batch)
app.command()(jobs.jobs)
app.command()(jobs.cancel)
app.command()(jobs.dead)
app.command()(doctor.doctor)
app.add_typer(db.app, name="db", help="The database: migrations.")
app.add_typer(keys.app, name="keys", help="API keys: who may come in.")
app.add_typer(data.app, name="data", help="Training sets: pictures and captions.")
app.add_typer(train.app, name="train", help="Training: base models and styles.")
app.add_typer(models.app, name="models", help="Base models and LoRAs from elsewhere.")
app.add_typer(styles.app, name="styles", help="Published styles: versions and the way back.")
