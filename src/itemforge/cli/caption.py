"""`itemforge data caption`: first captions, for a person to review."""

import sys
from collections import Counter
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itemforge.cli.process import Folder
from itemforge.cli.steps import stages_shown
from itemforge.errors import ConfigurationError

if TYPE_CHECKING:
    from itemforge.dataset.captioning.cache import CaptionCache
    from itemforge.dataset.captioning.face import Captioner
    from itemforge.dataset.captioning.ledger import Summary
    from itemforge.dataset.captioning.limits import Limits
    from itemforge.dataset.steps.captions import Saving, Todo


class Provider(StrEnum):
    """Who says what a picture shows."""

    name = "name"
    local = "local"
    gemini = "gemini"


def caption(
    folder: Folder,
    provider: Annotated[
        Provider, typer.Option(help="the item's name, a model of a directory, or Gemini")
    ] = Provider.name,
    model: Annotated[
        str | None, typer.Option(help="of local: the model's directory; of gemini: another model's name")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="pictures asked for at once")] = 4,
    per_minute: Annotated[int | None, typer.Option(min=1, help="requests a minute at most")] = None,
    per_day: Annotated[
        int | None, typer.Option(min=1, help="requests a day at most, over all runs of this dataset")
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="of gemini: half the price, answers within a day")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask whether the cost is right")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="also what was captioned before and no person has looked at")
    ] = False,
    ask_failed_again: Annotated[
        bool, typer.Option("--ask-failed-again", help="also what was refused for good before")
    ] = False,
) -> None:
    """Caption the pictures that have none. What a person wrote, approved or rejected is never touched.

    Repeat the command to go on after an interruption: no answer is paid for twice.

    itemforge data caption items --provider gemini --per-minute 15
    """
    from itemforge.cli.crawl import INTERRUPTED
    from itemforge.dataset.captioning.cache import CaptionCache
    from itemforge.dataset.captioning.costs import total
    from itemforge.dataset.captioning.face import Failed, Reason
    from itemforge.dataset.captioning.limits import Limits
    from itemforge.dataset.captioning.run import Interrupted
    from itemforge.dataset.steps.captions import Saving, cache_of, find_todo
    from itemforge.dataset.store import open_existing

    if batch and provider is not Provider.gemini:
        raise ConfigurationError("--batch is Gemini's; leave it out, or say --provider gemini")
    with ExitStack() as stack:
        store = stack.enter_context(open_existing(folder))
        todo = find_todo(store, again=again)
        _tell_todo(todo, folder)
        if not todo.pictures:
            return
        captioner = _captioner(provider, model, stack)
        cache = stack.enter_context(CaptionCache(cache_of(folder)))
        if provider is Provider.gemini:
            _agree_on_cost(todo, captioner, cache, batch, yes, ask_failed_again)
        tell = stack.enter_context(stages_shown())
        saving = Saving(store, provider.value, lambda done, of: tell("captions", done, of))
        limits = Limits(per_minute, per_day)
        interrupted = False
        try:
            summary = _run(todo, captioner, cache, saving, limits, concurrency, batch, ask_failed_again)
        except Interrupted as stop:
            summary, interrupted = stop.summary, True
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on", err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(
        f"{summary.captioned} captioned, {summary.known} of them answered before; {saving.saved} are new"
    )
    if saving.stale:
        typer.echo(f"{saving.stale} were captioned by a person meanwhile, and left")
    _tell_failures(summary)
    if provider is Provider.gemini:
        typer.echo(f"cost: {total(summary.usage, captioner.model, batch=batch)}")
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if summary.stopped:
        reasons = {each.answer.reason for each in summary.failed if isinstance(each.answer, Failed)}
        if Reason.SETUP in reasons:
            raise ConfigurationError(summary.stopped)
        typer.echo(f"stopped: {summary.stopped}", err=True)
        raise typer.Exit(1)


def _tell_todo(todo: "Todo", folder: Path) -> None:
    typer.echo(
        f"{len(todo.pictures)} pictures to caption; {todo.by_person} have a person's word, {todo.by_provider} a "
        f"caption already, {todo.not_usable} are copies, set aside or not processed"
    )
    if not todo.pictures and todo.by_provider:
        typer.echo("--again captions those anew that no person has looked at")
    if not todo.pictures and not todo.by_person and not todo.by_provider:
        typer.echo(f"process the pictures first: itemforge data process {folder}")


def _captioner(provider: Provider, model: str | None, stack: ExitStack) -> "Captioner":
    if provider is Provider.name:
        from itemforge.dataset.captioning.by_name import NameCaptioner

        return NameCaptioner()
    if provider is Provider.local:
        from itemforge.dataset.captioning.local import LocalCaptioner
        from itemforge.engine.warmup import pick_device

        if model is None:
            raise ConfigurationError("name the model's directory: --model DIR")
        return LocalCaptioner(Path(model), device=str(pick_device("auto")))
    from itemforge.dataset.captioning.gemini import DEFAULT_MODEL, GeminiCaptioner, GeminiOptions
    from itemforge.settings import CaptionSettings, load

    told = load(CaptionSettings)
    options = GeminiOptions(
        model or DEFAULT_MODEL,
        told.gemini_url,
        told.gemini_timeout,
        told.gemini_attempts,
        told.gemini_pause,
        told.ca_file,
    )
    return stack.enter_context(GeminiCaptioner(told.gemini_key, options))


def _agree_on_cost(
    todo: "Todo",
    captioner: "Captioner",
    cache: "CaptionCache",
    batch: bool,
    yes: bool,
    ask_failed_again: bool,
) -> None:
    from itemforge.dataset.captioning.costs import estimate
    from itemforge.dataset.captioning.run import to_ask

    count = to_ask(todo.pictures, captioner, cache, ask_failed_again=ask_failed_again)
    typer.echo(f"estimate: {estimate(count, captioner.model, batch=batch)}")
    if not count or yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("this costs money, and there is nobody to ask; say --yes")
    if not typer.confirm("go on?"):
        raise typer.Exit


def _run(
    todo: "Todo",
    captioner: "Captioner",
    cache: "CaptionCache",
    saving: "Saving",
    limits: "Limits",
    concurrency: int,
    batch: bool,
    ask_failed_again: bool,
) -> "Summary":
    from itemforge.dataset.captioning.gemini import GeminiCaptioner
    from itemforge.dataset.captioning.gemini_batch import BatchOptions, caption_batch
    from itemforge.dataset.captioning.run import caption_all
    from itemforge.settings import CaptionSettings, load

    if batch and isinstance(captioner, GeminiCaptioner):
        options = BatchOptions(poll=load(CaptionSettings).gemini_poll)
        return caption_batch(
            todo.pictures, captioner, cache, options, saving, ask_failed_again=ask_failed_again
        )
    return caption_all(
        todo.pictures, captioner, cache, concurrency, limits, saving, ask_failed_again=ask_failed_again
    )


def _tell_failures(summary: "Summary") -> None:
    from itemforge.dataset.captioning.face import Failed

    answers = [each.answer for each in summary.failed if isinstance(each.answer, Failed)]
    reasons = Counter(each.reason for each in answers)
    for reason, count in reasons.most_common():
        example = next(each for each in answers if each.reason is reason)
        typer.echo(f"not captioned, {reason}: {count} ({example.text})")
    if any(each.retryable for each in answers):
        typer.echo("repeat the command to ask again for those that may succeed later")
