"""What words mean, learnt before any picture: the text encoder imitates a sentence encoder.

A model that sees a few thousand captions learns their words and no others. The teacher (all-MiniLM-L6-v2, or
any folder in sentence-transformers layout with mean pooling) knows English: the states that end a phrase learn to
say, through one linear layer, what the teacher says of it (cosine distance; Reimers and Gurevych 2020). So a word that no
caption had lands near those that mean the same. The linear layer is thrown away afterwards.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from itemforge.errors import ModelError
from itemforge.training.config import Words
from itemforge.training.learner import Learner, Learning
from itemforge.training.stage import generator

_CHUNK = 256
#: Places after the end of the longest phrase that learn as well.
_AFTER = 8


def teacher_words(teacher: Path) -> list[str]:
    """The whole English words of the teacher's vocabulary.

    Raises:
        ModelError: the folder has no tokenizer of that kind.
    """
    try:
        vocabulary = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{teacher} has no tokenizer.json with a vocabulary: {error!r}") from error
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)


@torch.inference_mode()
def teacher_states(teacher: Path, phrases: list[str], device: torch.device) -> Tensor:
    """What the teacher says of each phrase: (N, D) float32 of length one.

    Raises:
        ModelError: the teacher cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(teacher, local_files_only=True)
        model = AutoModel.from_pretrained(teacher, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the teacher {teacher}: {str(error)[:300]}") from error
    model.to(device).eval()
    found = []
    for at in range(0, len(phrases), _CHUNK):
        batch = tokenizer(phrases[at : at + _CHUNK], padding=True, truncation=True, return_tensors="pt").to(
            device
        )
        states = model(**batch).last_hidden_state
        mask = batch.attention_mask[..., None].float()
        found.append(functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).cpu())
    return torch.cat(found)


class Lesson:
    """Phrases and what the teacher says of them."""

    def __init__(
        self,
        phrases: Iterable[str],
        states: Tensor,
        tokenizer: Any,
        config: Words,
        hidden: int,
        device: torch.device,
    ) -> None:
        self.weight, self._device = config.weight, device
        self.head = nn.Linear(hidden, states.shape[1]).to(device)
        self._states = states
        made = tokenizer(list(phrases), padding="max_length", truncation=True, return_tensors="pt")
        # Phrases are short: what comes long after the longest one is not worth the arithmetic.
        longest = int(made.attention_mask.sum(1).max()) + _AFTER
        self._tokens = made.input_ids[:, :longest].to(torch.int32)
        self._end = tokenizer.eos_token_id

    def loss(self, text_encoder: Any, chance: torch.Generator, count: int) -> Tensor:
        """Mean cosine distance from the teacher over `count` phrases."""
        places = torch.randint(len(self._tokens), (count,), generator=chance)
        tokens = self._tokens[places].long().to(self._device)
        # The end and the padding after it are the same token, and most of what the UNet will look at.
        after = (tokens == self._end)[..., None]
        states = text_encoder(tokens).last_hidden_state
        told = self.head((states * after).sum(1) / after.sum(1)).float()
        wanted = self._states[places].to(self._device)
        return (1 - functional.cosine_similarity(told, wanted, dim=-1)).mean()


class WordsStage(Learning):
    """The text encoder alone."""

    name = "words"

    def __init__(self, text_encoder: Any, lesson: Lesson, config: Words, seed: int) -> None:
        self.steps, self.done = config.steps, 0
        self._text_encoder, self._lesson, self._seed = text_encoder, lesson, seed
        self._batch = config.batch_size
        text_encoder.requires_grad_(True).train()
        self.learner = Learner([text_encoder, lesson.head], config)

    def step(self) -> dict[str, float]:
        loss = self._lesson.loss(self._text_encoder, generator(self._seed, self.done), self._batch)
        norm = self.learner.finish(loss, self.done)
        self.done += 1
        return {"distance": float(loss.detach()), "norm": norm}

    def finish(self) -> None:
        """Leave the averages in the network."""
        self.learner.ema.swap()
