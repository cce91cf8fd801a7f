"""`itemforge train eval`: every checkpoint of a style asked the same, and which one is the best.

A candidate is a checkpoint (as learnt, or averaged) at a weight. The base model without it is the floor, held-out real
pictures are the ceiling. Pictures are kept by what decides them, so an evaluation that was stopped goes on.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from itemforge.contract import Scheduler
from itemforge.engine.loop import Engine
from itemforge.engine.rows import LoraRef, Row
from itemforge.errors import InvalidInput
from itemforge.styles.files import file_sha256, write_atomic
from itemforge.training.drawing import OnPicture, Pixels, draw_rows
from itemforge.training.judge import Figures, Judge, Nearest, between
from itemforge.training.suite import Asked

WEIGHTS = (0.6, 0.8, 1.0)
#: Above, a candidate is not chosen while there is one below: it draws what it was shown.
MOST_COPIED = 0.75
#: Pairs of a drawn and a training picture that are shown.
PAIRS = 8
#: Sides of the pictures that are held to be shown: there may be thousands.
SHOWN = 256
BEST = "best.json"
_FOLDER = re.compile(r"(\d{3,})-(raw|ema)")


@dataclass(frozen=True)
class Candidate:
    """`kind` is `raw` or `ema`."""

    epoch: int
    kind: str
    weight: float
    lora: LoraRef

    @property
    def name(self) -> str:
        return f"epoch {self.epoch}, {self.kind}, weight {self.weight:g}"


@dataclass(frozen=True)
class Judged:
    """`style` and `prompt` are 0 at the floor and 1 at the ceiling; `drawn` is at most `SHOWN` wide."""

    candidate: Candidate
    figures: Figures
    drawn: list[Pixels]
    style: float | None
    prompt: float | None

    @property
    def score(self) -> float:
        """Mean of style and prompt, of those that were measured, none counted beyond the ceiling."""
        known = [min(each, 1.0) for each in (self.style, self.prompt) if each is not None]
        return float(np.mean(known)) if known else 0.0


@dataclass(frozen=True)
class Evaluation:
    """All candidates in the order of their epochs, and the best. `floor` are the base model's figures."""

    asked: list[Asked]
    base: list[Pixels]
    floor: Figures
    style_ceiling: float
    prompt_ceiling: float | None
    judged: list[Judged]
    best: Judged
    nearest: list[Nearest]


def find_candidates(run: Path, weights: Sequence[float], every: int = 1) -> list[Candidate]:
    """The checkpoints of a run, of every `every`th epoch and of the last.

    Raises:
        InvalidInput: there are none.
    """
    found = []
    for folder in sorted((run / "checkpoints").glob("*/")):
        named = _FOLDER.fullmatch(folder.name)
        file = next(iter(sorted(folder.glob(f"*-{named[1]}.safetensors"))), None) if named else None
        if named and file is not None:
            found.append((int(named[1]), named[2], file))
    if not found:
        raise InvalidInput(f"{run} has no checkpoints yet; train the LoRA first")
    last = max(epoch for epoch, _, _ in found)
    kept = [each for each in found if each[0] % every == 0 or each[0] == last]
    hashes = {file: file_sha256(file) for _, _, file in kept}
    return [
        Candidate(epoch, kind, weight, LoraRef(file, hashes[file], weight))
        for epoch, kind, file in kept
        for weight in weights
    ]


def evaluate(
    engine: Engine,
    candidates: Sequence[Candidate],
    asked: list[Asked],
    judge: Judge,
    prompt_ceiling: float | None,
    pictures: Path,
    on_picture: OnPicture = lambda done, of: None,
) -> Evaluation:
    """Draw and judge. `pictures` is the folder where what is drawn is kept.

    Raises:
        ModelError: a picture could not be drawn.
    """
    total = len(asked) * (len(candidates) + 1)

    def drawn_with(number: int, loras: tuple[LoraRef, ...]) -> list[Pixels]:
        before = number * len(asked)
        made = _drawn(engine, asked, loras, pictures, lambda done, of: on_picture(before + done, total))
        on_picture(before + len(asked), total)
        return made

    base = drawn_with(0, ())
    floor = judge.figures(asked, base)
    judged = []
    for number, candidate in enumerate(candidates, 1):
        drawn = drawn_with(number, (candidate.lora,))
        figures = judge.figures(asked, drawn)
        style = between(figures.style, floor.style, judge.ceiling)
        prompt = between(figures.prompt, floor.prompt, prompt_ceiling)
        judged.append(Judged(candidate, figures, [_small(each) for each in drawn], style, prompt))
    best = choose(judged)
    nearest = judge.nearest(best.drawn, PAIRS)
    return Evaluation(
        asked, [_small(each) for each in base], floor, judge.ceiling, prompt_ceiling, judged, best, nearest
    )


def choose(judged: Sequence[Judged]) -> Judged:
    """The highest score among those that do not copy; of equal ones the earlier epoch and the lower weight."""
    honest = [each for each in judged if (each.figures.copied or 0.0) <= MOST_COPIED]
    return max(honest or judged, key=lambda each: (each.score, -each.candidate.epoch, -each.candidate.weight))


def write_best(best: Judged, path: Path) -> None:
    """What `itemforge train publish` takes."""
    told = {
        "file": str(best.candidate.lora.path),
        "sha256": best.candidate.lora.sha256,
        "weight": best.candidate.weight,
        "name": best.candidate.name,
        "score": best.score,
        "figures": asdict(best.figures),
    }
    write_atomic(path, (json.dumps(told, indent=2) + "\n").encode())


def read_best(path: Path) -> tuple[Path, float] | None:
    """File and weight of the best, or None if the run was not evaluated.

    Raises:
        InvalidInput: the file is damaged, or the checkpoint has changed since.
    """
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        file, sha256, weight = Path(told["file"]), str(told["sha256"]), float(told["weight"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read ({error!r}); evaluate again, or name --file") from error
    if not file.is_file() or file_sha256(file) != sha256:
        raise InvalidInput(f"{file} is not what was evaluated; evaluate again, or name --file")
    return file, weight


def _drawn(
    engine: Engine, asked: Sequence[Asked], loras: tuple[LoraRef, ...], folder: Path, on_picture: OnPicture
) -> list[Pixels]:
    """The pictures, from the folder if they were drawn before."""
    rows = [_row(n, each, engine, loras) for n, each in enumerate(asked)]
    told = repr((engine.model.base, [(vars(row) | {"loras": ""}) for row in rows]))
    told += repr([(lora.sha256, lora.weight) for lora in loras])
    kept = folder / hashlib.sha256(told.encode()).hexdigest()[:32]
    try:
        return [np.asarray(Image.open(kept / f"{row.row_id}.png").convert("RGB")) for row in rows]
    except (OSError, SyntaxError):
        drawn = draw_rows(engine, rows, on_picture)
    kept.mkdir(parents=True, exist_ok=True)
    for row, pixels in zip(rows, drawn, strict=True):
        part = kept / f"{row.row_id}.part"
        Image.fromarray(pixels).save(part, "PNG")
        part.replace(kept / f"{row.row_id}.png")
    return drawn


def _small(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _row(number: int, asked: Asked, engine: Engine, loras: tuple[LoraRef, ...]) -> Row:
    return Row(
        str(number),
        asked.prompt,
        asked.negative,
        asked.steps,
        asked.guidance,
        asked.seed,
        Scheduler.DDIM,
        asked.width or engine.model.width,
        asked.height or engine.model.height,
        loras,
    )


def read_weights(text: str) -> list[float]:
    """Weights as `0.6,0.8,1.0`.

    Raises:
        InvalidInput: one is no number, or 0.
    """
    try:
        weights = [float(each) for each in text.split(",")]
    except ValueError:
        weights = [0.0]
    if not all(each != 0 and abs(each) <= 5 for each in weights):
        raise InvalidInput(f"--weights {text!r}: write numbers from -5 to 5 that are not 0, as 0.6,0.8,1.0")
    return weights
