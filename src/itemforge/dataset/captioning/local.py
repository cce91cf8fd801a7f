"""Captions by a model on this machine: BLIP, GIT, Florence-2 and whatever else transformers calls image-text-to-text.

Such a model writes one sentence, which becomes the caption's object. Weights are read as safetensors alone, and no
code that a model brings is run.
"""

import io
import re
import threading
from pathlib import Path
from typing import Any

from itemforge.dataset.captioning.face import Answer, Captioned, Failed, Key, Picture, Reason
from itemforge.dataset.captioning.fields import MAX_WORDS, CaptionFields, clean, is_refusal
from itemforge.errors import ConfigurationError, ModelError
from itemforge.styles.files import known_sha256

#: Goes up with every change of what is asked or of how the sentence is cleaned.
VERSION = "local-1"
_MAX_NEW_TOKENS = 40
#: What a kind of model has to be told before it captions.
_TASKS = {"florence2": "<CAPTION>"}
_OPENING = re.compile(
    r"^(there (is|are) )?(an?|the)?\s*((close up|cartoon|pixel art|2d|digital)\s+)?"
    r"(image|picture|photo|photograph|drawing|illustration|icon|rendering|cartoon|painting)\s+"
    r"(of|shows|showing|depicts|depicting)\s+"
)


class LocalCaptioner:
    """A model of a directory. One picture at a time, whatever the number of threads.

    Raises:
        ConfigurationError: transformers or torch is not installed.
        ModelError: the directory holds no model that captions.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", prompt: str | None = None) -> None:
        self._lock = threading.Lock()
        self.folder = folder
        self.model = f"{folder.name}@{_weights_sha256(folder)[:12]}"
        self._device = device
        self._processor, self._network = _load(folder, device)
        self._prompt = prompt if prompt is not None else _TASKS.get(self._network.config.model_type)

    def key(self, picture: Picture) -> Key:
        return Key(picture.sha256, f"{VERSION} {self._prompt or ''}".strip(), self.model)

    def caption(self, picture: Picture) -> Answer:
        png = picture.load()
        try:
            image = _on_white(png)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for a broken file
            return Failed(Reason.UNREADABLE, f"the picture cannot be read ({type(error).__name__})")
        with self._lock:
            sentence = self._sentence(image)
        return read_sentence(sentence)

    def _sentence(self, image: Any) -> str:
        import torch

        asked = {"text": self._prompt} if self._prompt else {}
        inputs = self._processor(images=image, return_tensors="pt", **asked).to(self._device)
        with torch.inference_mode():
            written = self._network.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
        return str(self._processor.batch_decode(written, skip_special_tokens=True)[0])


def read_sentence(sentence: str) -> Answer:
    """What a captioning model's sentence says of the thing."""
    if is_refusal(sentence):
        return Failed(Reason.REFUSED, "the model declined to describe the picture")
    text = re.sub(r"\[unk\]|</?s>", " ", sentence, flags=re.IGNORECASE)
    name = _OPENING.sub("", clean(text))
    words = _without_repeats(name.split())[:MAX_WORDS]
    if not any(letter.isalpha() for letter in "".join(words)):
        return Failed(Reason.EMPTY, "the model wrote nothing")
    try:
        return Captioned(CaptionFields(object=" ".join(words)))
    except ValueError:  # pydantic's error is one
        return Failed(Reason.MALFORMED, "the model wrote no description")


def _without_repeats(words: list[str]) -> list[str]:
    """Small models fall into saying one word for ever."""
    return [word for number, word in enumerate(words) if number == 0 or word != words[number - 1]]


def _on_white(png: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _weights_sha256(folder: Path) -> str:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} holds no .safetensors weights; pickles (.bin) are not read, as they may run any code"
        )
    return known_sha256(weights[0])


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError:
        raise ConfigurationError(
            "transformers is not installed, by which a local model captions: pip install 'itemforge[worker]'"
        ) from None
    trust = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **trust)
        network = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, **trust)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"{folder} cannot be loaded as a captioning model ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    return processor, network.to(device).eval()
