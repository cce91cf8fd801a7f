"""Captions by a batch job: half the price, an answer within a day.

A job is written down before it is created, so a run that is killed finds it again and pays for nothing twice.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from itemforge.dataset.captioning.cache import CaptionCache, Job
from itemforge.dataset.captioning.face import Answer, Failed, Key, Picture, Reason
from itemforge.dataset.captioning.gemini import GeminiCaptioner
from itemforge.dataset.captioning.gemini_errors import failure
from itemforge.dataset.captioning.gemini_lines import read_lines, request_line
from itemforge.dataset.captioning.gemini_request import VERSION
from itemforge.dataset.captioning.ledger import Item, Ledger, Progress, Summary

_MIME = "application/jsonl"
_ENDED = {
    "JOB_STATE_SUCCEEDED",
    "JOB_STATE_PARTIALLY_SUCCEEDED",
    "JOB_STATE_FAILED",
    "JOB_STATE_CANCELLED",
    "JOB_STATE_EXPIRED",
}
#: Looks at a job in a row that may fail before the run ends. The job goes on meanwhile.
_LOOKS = 10


@dataclass(frozen=True)
class BatchOptions:
    """Seconds between looks at a job, seconds to wait at most for all jobs (None: until they end), bytes of one job's file."""

    poll: float = 30.0
    patience: float | None = None
    max_bytes: int = 1_000_000_000


class _Ended(Exception):
    """The run cannot go on, for a reason that is not one picture's."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.text)


def caption_batch(
    items: Iterable[Item],
    provider: GeminiCaptioner,
    cache: CaptionCache,
    options: BatchOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    ask_failed_again: bool = False,
) -> Summary:
    """Caption what is neither captioned nor in a job of an earlier run, and wait for the answers.

    Ctrl+C or a kill at any moment leaves the jobs running; the next call takes their answers.
    """
    ledger = Ledger([Picture(*item) for item in items], provider, on_progress)
    todo = ledger.take_known(cache, ask_failed_again)
    run = _Run(provider, cache, options or BatchOptions(), ledger, todo)
    try:
        run.find_jobs()
        run.send_rest()
        run.wait()
    except _Ended as ended:
        return ledger.summary(str(ended))
    return ledger.summary(None)


class _Run:
    """One call: jobs that are under way, and pictures that wait for an answer."""

    def __init__(
        self,
        provider: GeminiCaptioner,
        cache: CaptionCache,
        options: BatchOptions,
        ledger: Ledger,
        todo: dict[Key, Picture],
    ) -> None:
        self._provider, self._cache, self._options, self._ledger = provider, cache, options, ledger
        self._todo = {key.picture: picture for key, picture in todo.items()}
        self._jobs: list[Job] = []

    def find_jobs(self) -> None:
        """Jobs of earlier runs. One without a name was being created when its run ended: was it?"""
        jobs = self._cache.jobs(self._provider.model, VERSION)
        nameless = {job.display for job in jobs if job.name is None}
        names = self._listed(nameless) if nameless else {}
        for job in jobs:
            found = job if job.name else Job(job.display, names.get(job.display), job.pictures)
            if found.name is None:
                self._cache.drop_job(found)
            else:
                self._keep(found)
                self._jobs.append(found)

    def send_rest(self) -> None:
        """Create jobs for what is in none."""
        waiting = {sha256 for job in self._jobs for sha256 in job.pictures}
        rest = [picture for sha256, picture in self._todo.items() if sha256 not in waiting]
        with tempfile.TemporaryDirectory(prefix="itemforge-captions-") as folder:
            file = Path(folder) / "requests.jsonl"
            left: Iterator[Picture] = iter(rest)
            while sent := self._write(file, left):
                self._jobs.append(self._send(file, sent))

    def wait(self) -> None:
        """Take the answers of every job that ends, until all have or patience has."""
        begun, failed = time.monotonic(), 0
        while self._jobs:
            for job in list(self._jobs):
                try:
                    found = self._look(job)
                except Exception as error:  # the line is down: the job is not
                    failed += 1
                    self._end_if(failure(error, self._provider.secret), failed >= _LOOKS)
                else:
                    failed = 0
                    if found is not None:
                        self._take(job, *found)
            if not self._jobs:
                return
            patience = self._options.patience
            if patience is not None and time.monotonic() - begun >= patience:
                self._leave_pending()
                return
            time.sleep(self._options.poll)

    def _write(self, file: Path, pictures: Iterator[Picture]) -> list[str]:
        """Lines for as many pictures as one job may have; their sha256s. What cannot be loaded has its answer now."""
        sent: list[str] = []
        with file.open("w", encoding="utf-8") as lines:
            for picture in pictures:
                line = request_line(self._provider.model, picture)
                if isinstance(line, Failed):
                    self._answer(picture.sha256, line)
                    continue
                sent.append(picture.sha256)
                lines.write(line)
                if lines.tell() >= self._options.max_bytes:
                    break
        return sent

    def _send(self, file: Path, pictures: list[str]) -> Job:
        from google.genai import types

        client = self._provider.client
        job = Job(f"itemforge-captions-{uuid4().hex[:16]}", None, tuple(pictures))
        with self._ending_errors():
            uploaded = client.files.upload(
                file=file, config=types.UploadFileConfig(display_name=job.display, mime_type=_MIME)
            )
        self._keep(job)
        # One try: a second one after a lost answer would be a second job, and a second bill.
        once = types.HttpOptions(retry_options=types.HttpRetryOptions(attempts=1))
        config = types.CreateBatchJobConfig(display_name=job.display, http_options=once)
        with self._ending_errors():
            made = client.batches.create(model=self._provider.model, src=uploaded.name or "", config=config)
        named = Job(job.display, made.name, job.pictures)
        self._keep(named)
        return named

    def _listed(self, displays: set[str]) -> dict[str, str]:
        with self._ending_errors():
            jobs = list(self._provider.client.batches.list())
        return {job.display_name: job.name for job in jobs if job.display_name in displays and job.name}

    def _look(self, job: Job) -> tuple[str, dict[str, Answer]] | None:
        """How the job ended and what it answered; None while it has not."""
        from google.genai import errors

        try:
            found = self._provider.client.batches.get(name=job.name or "")
            state = str(getattr(found.state, "value", found.state) or "")
            if state not in _ENDED:
                return None
            result = found.dest.file_name if found.dest else None
            data = self._provider.client.files.download(file=result) if result else b""
            return state, read_lines(data, self._provider.secret)
        except errors.APIError as error:
            if error.code == 404:  # the service keeps neither jobs nor files for ever
                return "gone", {}
            raise

    def _take(self, job: Job, state: str, answers: dict[str, Answer]) -> None:
        without = _without_answer(state)
        for sha256 in job.pictures:
            self._answer(sha256, answers.get(sha256, without))
        self._cache.drop_job(job)
        self._jobs.remove(job)

    def _keep(self, job: Job) -> None:
        self._cache.keep_job(job, self._provider.model, VERSION)

    def _answer(self, sha256: str, answer: Answer) -> None:
        picture = self._todo.get(sha256)
        # A picture of an earlier run's job may not be among this run's: its answer is kept all the same.
        key = self._provider.key(picture or Picture(sha256, lambda: b""))
        self._cache.put(key, answer)
        if picture is not None:
            self._ledger.add(key, answer)

    @contextmanager
    def _ending_errors(self) -> Iterator[None]:
        """What fails for all pictures at once ends the run. No cause: it may quote a request with its key."""
        try:
            yield
        except Exception as error:
            raise _Ended(failure(error, self._provider.secret)) from None

    def _end_if(self, failed: Failed, too_often: bool) -> None:
        if failed.stops or not failed.retryable or too_often:
            raise _Ended(failed)

    def _leave_pending(self) -> None:
        text = "its batch job has not ended; run the same again to take the answer"
        for job in self._jobs:
            for sha256 in job.pictures:
                if sha256 in self._todo:
                    key = self._provider.key(self._todo[sha256])
                    self._ledger.add(key, Failed(Reason.PENDING, text, retryable=True))


def _without_answer(state: str) -> Failed:
    ended = state.removeprefix("JOB_STATE_").lower().replace("_", " ")
    return Failed(Reason.SERVER, f"the batch job ended ({ended}) without an answer for it", retryable=True)
