"""Where the figures of a run go: always into its folder, and to W&B if that is asked for.

The folder gets `metrics.csv`, the plots `loss.png` and `rate.png`, sample sheets, and `report.html`, which shows all of it. A run that was
interrupted goes on in the same files and in the same W&B run.
"""

import csv
import html
import json
from pathlib import Path
from typing import Any, Protocol

import structlog

from itemforge.errors import ConfigurationError
from itemforge.training.lora_config import LoraConfig

log = structlog.get_logger(__name__)

METRICS, REPORT = "metrics.csv", "report.html"
COLUMNS = ("step", "loss", "lr", "validation", "validation_ema")


class Tracker(Protocol):
    """What a run tells. `figures` has some of `COLUMNS`."""

    def figures(self, step: int, figures: dict[str, float]) -> None: ...
    def samples(self, step: int, sheet: Path) -> None: ...
    def finish(self, artifact: Path) -> None: ...


class FolderTracker:
    """Into the run's folder."""

    def __init__(self, folder: Path, config: LoraConfig) -> None:
        self._folder, self._config = folder, config
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = _read(folder / METRICS)

    def figures(self, step: int, figures: dict[str, float]) -> None:
        # A run that goes on repeats the steps after its last state, with the same figures.
        self._rows[step] = self._rows.get(step, {}) | figures

    def samples(self, step: int, sheet: Path) -> None:
        return  # the sheet lies in the folder already

    def finish(self, artifact: Path) -> None:
        self.write()

    def write(self) -> None:
        """Bring the files up to date."""
        with (self._folder / METRICS).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self._rows.items()))
        plots = [self._plot("loss", ("loss", "validation", "validation_ema")), self._plot("rate", ("lr",))]
        sheets = sorted(path.name for path in (self._folder / "samples").glob("*.png"))
        settings = html.escape(json.dumps(self._config.model_dump(mode="json"), indent=2))
        pictures = "".join(
            f"<h2>{html.escape(n)}</h2><img src='samples/{html.escape(n)}'>" for n in reversed(sheets)
        )
        page = (
            "<!doctype html><meta charset=utf-8><title>{0}</title><style>body{{font:16px system-ui;margin:2rem auto;"
            "max-width:72rem;padding:0 1rem}}img{{max-width:100%}}pre{{background:#f4f4f2;padding:1rem}}</style>"
            "<h1>{0}</h1>{1}{2}<h2>Settings</h2><pre>{3}</pre>"
        ).format(
            html.escape(self._config.name), "".join(f"<img src='{p}'>" for p in plots), pictures, settings
        )
        (self._folder / REPORT).write_text(page, encoding="utf-8")

    def _plot(self, name: str, columns: tuple[str, ...]) -> str:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.5), dpi=100, layout="constrained")
        axes = figure.subplots()
        for column in columns:
            points = [(step, row[column]) for step, row in sorted(self._rows.items()) if column in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=column, marker="." if len(points) < 50 else "")
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        figure.savefig(self._folder / f"{name}.png")
        return f"{name}.png"


def _read(path: Path) -> dict[int, dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        return {int(row.pop("step")): row for row in rows}
    except (OSError, ValueError, KeyError):
        return {}  # none yet, or cut off: the figures begin anew


class WandbTracker:
    """To Weights & Biases: settings, figures, samples, and the LoRA as an artifact."""

    def __init__(self, folder: Path, config: LoraConfig) -> None:
        """Raises:
        ConfigurationError: wandb is not installed, or has no key for its server.
        """
        try:
            import wandb
        except ImportError:
            raise ConfigurationError(
                "wandb is not installed: pip install 'itemforge[train]', or wandb = \"disabled\""
            ) from None
        self._wandb = wandb
        known = folder / "wandb-run"
        try:
            self._run: Any = wandb.init(
                project=config.wandb_project,
                name=config.name,
                id=known.read_text(encoding="utf-8").strip() if known.is_file() else None,
                resume="allow",
                mode=config.wandb,
                dir=str(folder),
                config=config.model_dump(mode="json"),
            )
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            raise ConfigurationError(
                f'W&B refused: {error}; set WANDB_API_KEY, or wandb = "offline"'
            ) from error
        known.write_text(self._run.id, encoding="utf-8")

    def figures(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def samples(self, step: int, sheet: Path) -> None:
        self._run.log({"samples": self._wandb.Image(str(sheet))}, step=step)

    def finish(self, artifact: Path) -> None:
        made = self._wandb.Artifact("lora-adapter", type="model")
        made.add_dir(str(artifact))
        self._run.log_artifact(made)
        self._run.finish()
