"""A published style for other people: as a W&B artifact, or as a repository of the Hugging Face hub."""

from pathlib import Path
from typing import Any, Protocol

from itemforge.errors import ConfigurationError
from itemforge.styles.files import file_sha256, write_atomic
from itemforge.styles.pack import PackLora, StylePack


class Hub(Protocol):
    """The part of huggingface_hub.HfApi that is used."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...
    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any: ...


def write_pack(pack: StylePack, lora: Path, weight: float, folder: Path) -> StylePack:
    """Pack and LoRA as two files of a folder, such as `styles` of a home; what is there of that id is replaced."""
    source = f"{pack.id}.safetensors"
    local = pack.model_copy(
        update={"loras": (PackLora(source=source, sha256=file_sha256(lora), weight=weight),)}
    )
    write_atomic(folder / source, lora.read_bytes())
    write_atomic(folder / f"{pack.id}.toml", local.to_toml().encode())
    return local


def write_shared(pack: StylePack, lora: Path, folder: Path) -> Path:
    """A folder with a published pack, its LoRA and a model card."""
    local = write_pack(pack, lora, pack.loras[0].weight, folder)
    write_atomic(folder / "README.md", _card(local, local.loras[0].source).encode())
    return folder


def to_wandb(pack: StylePack, folder: Path, project: str) -> str:
    """Log the folder as an artifact `style-ID` of `ENTITY/PROJECT` or `PROJECT`; the artifact's name.

    Raises:
        ConfigurationError: wandb is not installed, or refuses.
    """
    try:
        import wandb
    except ImportError:
        raise ConfigurationError("wandb is not installed: pip install 'itemforge[train]'") from None
    entity, _, name = project.rpartition("/")
    try:
        run: Any = wandb.init(
            project=name, entity=entity or None, job_type="publish", name=pack.name, dir=str(folder.parent)
        )
    except (wandb.errors.UsageError, wandb.errors.CommError) as error:
        raise ConfigurationError(
            f"W&B refused: {error}; set WANDB_API_KEY, or WANDB_MODE=offline to upload later with `wandb sync`"
        ) from error
    artifact = wandb.Artifact(
        f"style-{pack.id}", type="model", metadata=pack.model_dump(mode="json", by_alias=True)
    )
    artifact.add_dir(str(folder))
    run.log_artifact(artifact, aliases=["latest", f"version-{pack.version}"])
    run.finish()
    return artifact.name


def to_hub(pack: StylePack, folder: Path, repository: str, hub: Hub | None = None) -> str:
    """Upload the folder to `OWNER/NAME`, which is made (private) if it does not exist; the repository's name.

    Raises:
        ConfigurationError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = hub or HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=pack.name)
    except HFValidationError as error:
        raise ConfigurationError(f"{repository!r} is no repository's name: {error}") from error
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigurationError(
            f"the hub did not take {repository}: {str(error).splitlines()[0]}; set HF_TOKEN to a token that may write"
        ) from error
    return repository


def _card(pack: StylePack, name: str) -> str:
    return f"""---
tags: [text-to-image, lora, diffusers, stable-diffusion, game-items]
library_name: diffusers
instance_prompt: {pack.trigger or "''"}
license: other
license_name: {pack.licence or "not stated"}
---
# {pack.id}, version {pack.version}

A LoRA for the base model whose weights have the identity `{pack.base}`.

- Trigger: `{pack.trigger}`; prompts: `{pack.template}`; negative prompt: `{pack.negative}`
- Licence: {pack.licence or "not stated"}
- `{name}` has kohya's keys with `.alpha`: diffusers, A1111 and ComfyUI read it. `{pack.id}.toml` is its ItemForge style pack.
"""
