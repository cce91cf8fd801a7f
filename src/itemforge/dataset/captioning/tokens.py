"""CLIP's own tokenizer, to count how much of a caption a text encoder reads.

Built from the merges that CLIP was published with (`clip_bpe/`), the way transformers builds it: nothing has
to be downloaded to count.
"""

import gzip
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from itemforge.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What CLIP's text encoder reads of a text, without begin and end.
MAX_TOKENS = 75
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def token_ids(text: str) -> list[int]:
    """The text's tokens, without begin and end.

    >>> token_ids("a photo of a cat")
    [320, 1125, 539, 320, 2368]

    Raises:
        ConfigurationError: the library `tokenizers` is not installed.
    """
    ids: list[int] = _tokenizer().encode(text, add_special_tokens=False).ids
    return ids


@lru_cache(maxsize=4096)
def count_tokens(text: str) -> int:
    """How many tokens a text has for CLIP, without begin and end."""
    return len(token_ids(text))


def read_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary and merges."""
    packed = (files("itemforge.dataset.captioning") / "clip_bpe" / "merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()[1:]  # the first names the version
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    return {word: number for number, word in enumerate(words)}, merges


def _byte_letters() -> list[str]:
    """The letter that stands for each byte, in the order of CLIP's vocabulary: bytes that print, then the others."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte) for byte in printed] + [chr(256 + number) for number in range(len(others))]


@lru_cache(maxsize=1)
def _tokenizer() -> "Tokenizer":
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        raise ConfigurationError(
            "tokenizers is not installed, by which captions are counted: pip install 'itemforge[data]'"
        ) from None
    vocab, merges = read_bpe()
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
