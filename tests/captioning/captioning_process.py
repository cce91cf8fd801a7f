"""A run in a process of its own, to be killed: `python captioning_process.py ADDRESS CACHE MODE COUNT`."""

import sys
from pathlib import Path

from captioning_pictures import picture
from gemini_server import KEY
from pydantic import SecretStr

from itemforge.dataset.captioning.cache import CaptionCache
from itemforge.dataset.captioning.gemini import GeminiCaptioner, GeminiOptions
from itemforge.dataset.captioning.gemini_batch import BatchOptions, caption_batch
from itemforge.dataset.captioning.run import caption_all


def main(url: str, cache_file: str, mode: str, count: str) -> None:
    options = GeminiOptions(base_url=url, timeout=20.0, attempts=1)
    items = [picture(number) for number in range(int(count))]
    with CaptionCache(Path(cache_file)) as cache, GeminiCaptioner(SecretStr(KEY), options) as captioner:
        if mode == "batch":
            summary = caption_batch(items, captioner, cache, BatchOptions(poll=0.05))
        else:
            summary = caption_all(items, captioner, cache, concurrency=3)
    print(summary.captioned, summary.known)


if __name__ == "__main__":
    main(*sys.argv[1:])
