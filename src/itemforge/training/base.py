"""`itemforge train base`: a small text-to-image model from scratch, stage after stage.

Tokenizer, autoencoder, words (if there is a teacher), UNet with the text encoder, meaning, decoder, export. Every stage goes on
where it was stopped, so the same command is repeated until it says that the model is there.
"""

import hashlib
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from itemforge.dataset.concepts import Concept
from itemforge.dataset.icons import read_told
from itemforge.dataset.metadata import Line
from itemforge.dataset.phrases import PLAIN, phrase
from itemforge.errors import InvalidInput
from itemforge.training import neighbours, shapes, words
from itemforge.training.config import StarterConfig
from itemforge.training.dictionary import read_nouns
from itemforge.training.diffusion import DiffusionStage, Phrasings
from itemforge.training.export import Networks, export
from itemforge.training.meaning import Layer, MeaningStage, Wordings, layers_of
from itemforge.training.pictures import Pictures, read_pictures
from itemforge.training.stage import Run, generator
from itemforge.training.vae import VaeStage, encode
from itemforge.training.words import Lesson, WordsStage

log = structlog.get_logger(__name__)

#: Pictures whose queries the stage `meaning` compares with.
_ASKED_ABOUT = 64


def train_base(config: StarterConfig, run: Run, device: torch.device) -> Path | None:
    """Go on with the run; the finished model's folder, or None when it was stopped before.

    Raises:
        InvalidInput: the training set or a saved state is broken, or belongs to another run.
        ModelError: the teacher or the weights to begin with cannot be read.
    """
    torch.manual_seed(config.seed)  # of the networks' first weights
    base = read_pictures(config.data / "base", config.size)
    concepts = [each.concept for each in read_told(config.data)]
    _check_run(config, run.folder, base)
    tokenizer = _tokenizer(config, run.folder, base, concepts)
    vae = _warm(shapes.build_vae(config), config, "vae").to(device)
    precision = getattr(torch, config.precision)
    every = _all_pictures(config, base)
    stage = VaeStage("vae", vae, "all", every, config.train_vae, config.seed, device, precision)
    if not run.train(stage):
        return None
    stage.finish()
    latents, scale = _latents(run.folder, vae, base, device)
    text_encoder = _warm(shapes.build_text_encoder(config, tokenizer), config, "text_encoder").to(device)
    lesson = None
    if config.train_words is not None:
        lesson = _lesson(config, run.folder, tokenizer, concepts, device)
        learnt = WordsStage(text_encoder, lesson, config.train_words, config.seed)
        if not run.train(learnt):
            return None
        learnt.finish()
    # Channels last is for a GPU's tensor cores; a CPU is slower with it in bfloat16.
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    unet = _warm(shapes.build_unet(config), config, "unet").to(device, memory_format=layout)
    drawing = DiffusionStage(
        unet,
        text_encoder,
        latents * scale,
        Phrasings.of(_worded(config, base.lines, concepts, device), tokenizer),
        base.lines,
        config.train_diffusion,
        config.seed,
        device,
        precision,
        lesson,
    )
    if not run.train(drawing):
        return None
    drawing.finish()
    if config.train_meaning is not None:
        layers = _asked(config, unet, text_encoder, tokenizer, latents * scale, base.lines, device)
        teacher = config.train_words.teacher if config.train_words else None
        others = words.teacher_words(teacher) if teacher else []
        wordings = Wordings(concepts, _meant(config, concepts, device), others)
        meaning = MeaningStage(
            text_encoder, tokenizer, layers, wordings, config.train_meaning, config.seed, device, precision
        )
        if not run.train(meaning):
            return None
        meaning.finish()
    sharper = VaeStage("decoder", vae, "decoder", every, config.train_decoder, config.seed, device, precision)
    if not run.train(sharper):
        return None
    sharper.finish()
    networks = Networks(unet, vae, text_encoder, tokenizer, scale)
    return export(networks, run.folder / "model")


def _all_pictures(config: StarterConfig, base: Pictures) -> Pictures:
    """What the autoencoder must be able to draw: the base and every style."""
    sets = [base] + [
        read_pictures(folder, config.size) for folder in sorted((config.data / "styles").glob("*/"))
    ]
    digest = hashlib.sha256("".join(each.sha256 for each in sets).encode()).hexdigest()
    lines = [line for each in sets for line in each.lines]
    return Pictures(lines, torch.cat([each.pixels for each in sets]), digest)


def _check_run(config: StarterConfig, folder: Path, base: Pictures) -> None:
    """A run is of one training set and one set of shapes; its states fit no other."""
    shape = config.model_dump_json(include={"size", "text", "vae", "unet", "seed"})
    identity = f"{base.sha256}\n{shape}\n"
    path = folder / "identity"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(identity, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != identity:
        raise InvalidInput(
            f"{folder} is a run on other pictures, or of another shape or seed; name another folder in `run`"
        )


def _tokenizer(config: StarterConfig, folder: Path, base: Pictures, concepts: list[Concept]) -> Any:
    place = folder / "tokenizer"
    if (place / "tokenizer.json").is_file():
        return shapes.open_tokenizer(place)
    texts = [text for line in base.lines for text in line.phrasings]
    if config.train_words is not None:
        texts += words.teacher_words(config.train_words.teacher)
    made = shapes.build_tokenizer(texts, config.text.vocabulary)
    made.save_pretrained(place)
    return made


def _warm(network: Any, config: StarterConfig, component: str) -> Any:
    if config.warm_start is not None:
        shapes.warm(network, config.warm_start / component)
    return network


def _latents(folder: Path, vae: Any, base: Pictures, device: torch.device) -> tuple[Tensor, float]:
    """The pictures' latents, kept by what they were made of, and what scales them to a deviation of one."""
    digest = hashlib.sha256(base.sha256.encode())
    for parameter in vae.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    path = folder / "latents" / f"{digest.hexdigest()}.safetensors"
    try:
        latents = load_file(path)["latents"]
    except (OSError, SafetensorError):
        latents = encode(vae, base.pixels, device)
        path.parent.mkdir(exist_ok=True)
        for old in path.parent.glob("*.safetensors"):
            old.unlink()
        save_file({"latents": latents}, path)
    return latents, 1.0 / float(latents.float().std())


def _worded(
    config: StarterConfig, lines: list[Line], concepts: list[Concept], device: torch.device
) -> list[Line]:
    """The pictures' captions, with the teacher's neighbours of each thing's names among them if that was asked for."""
    told = config.train_words
    if told is None or not told.neighbours:
        return lines
    free = neighbours.free_words(words.teacher_words(told.teacher), concepts)
    names = [name for name, _ in neighbours.names_of(concepts)]
    states = words.teacher_states(told.teacher, [*free, *names], device)
    found = neighbours.nearest(
        free, states[: len(free)], concepts, states[len(free) :], told.neighbours, told.likeness
    )
    return neighbours.with_neighbours(lines, found, config.seed)


def _asked(
    config: StarterConfig,
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    latents: Tensor,
    lines: list[Line],
    device: torch.device,
) -> list[Layer]:
    """The UNet's cross-attentions, with what it asks them about some pictures and their first captions."""
    places = torch.randperm(len(lines), generator=generator(config.seed, 0))[:_ASKED_ABOUT]
    tokens = Phrasings.of([lines[n] for n in places], tokenizer)
    first = tokens.tokens[tokens.first[:-1]].long().to(device)
    with torch.no_grad():
        states = text_encoder(first).last_hidden_state
    return layers_of(unet, latents[0, places].float().to(device), states, config.seed)


def _meant(config: StarterConfig, concepts: list[Concept], device: torch.device) -> list[tuple[str, int]]:
    """Words that are no names of things, if there is a teacher, each with the place of the thing that it is nearest to."""
    told, meaning = config.train_words, config.train_meaning
    if told is None or meaning is None:
        return []
    entries = read_nouns(meaning.dictionary) if meaning.dictionary else {}
    return neighbours.meant(told.teacher, entries, concepts, meaning.likeness, device)


def _lesson(
    config: StarterConfig, folder: Path, tokenizer: Any, concepts: list[Concept], device: torch.device
) -> Lesson:
    """Every English word that the teacher knows, and the things by all names that are trained on, plainly worded."""
    told = config.train_words
    assert told is not None  # noqa: S101 - asked by the caller
    names = [name for each in concepts for name in (each.label, *each.synonyms)]
    phrases = sorted(
        {*words.teacher_words(told.teacher), *names, *(phrase(t, n) for n in names for t in PLAIN)}
    )
    path = folder / "teacher.safetensors"
    try:
        states = load_file(path)["states"]
    except (OSError, SafetensorError):
        states = words.teacher_states(told.teacher, phrases, device)
        save_file({"states": states}, path)
    if len(states) != len(phrases):
        raise InvalidInput(f"{path} is of other words; delete it")
    return Lesson(phrases, states, tokenizer, told, config.text.hidden_size, device)
