"""What `itemforge doctor` finds out about the machine itself: memory, disk, GPU and driver, clock, model files."""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from itemforge.errors import ItemForgeError
from itemforge.settings import WorkerSettings
from itemforge.tls import client_context

#: GiB that must be free at home: a base model and its LoRAs, spool and caches.
_FREE_GIB = 5
#: GiB of main memory for the processes themselves, and copies of the weights besides: one to merge styles from, one
#: while they are loaded.
_PROCESS_GIB, _COPIES = 2, 2
#: GiB of GPU memory below which Stable Diffusion 1.5 does not even fit in half precision.
_GPU_GIB = 4
#: Seconds by which the clock may differ from the gateway's: signed addresses and tokens begin and end by it.
_SKEW = 30.0
_GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """`ok` None: not set up, which is no fault of an embedded system."""

    name: str
    ok: bool | None
    text: str


def home(settings: WorkerSettings) -> Finding:
    """Whether the home can be written, and has room for a base model."""
    place = settings.home
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding("home", False, f"{place}: {error.strerror}; set ITEMFORGE_HOME to a folder of yours")
    if not os.access(place, os.W_OK):
        return Finding("home", False, f"{place} is not writable; set ITEMFORGE_HOME to a folder of yours")
    free = shutil.disk_usage(place).free / _GIB
    text = f"{place}, {free:.0f} GiB free"
    if free < _FREE_GIB:
        return Finding("home", False, f"{text}; {_FREE_GIB} are needed: free some, or move ITEMFORGE_HOME")
    return Finding("home", True, text)


def memory(settings: WorkerSettings) -> Finding:
    """Main memory against what the worker needs for this model; a container's limit counts."""
    total = _memory_limit() / _GIB
    need = _PROCESS_GIB + _COPIES * _weights(settings) / _GIB
    text = f"{total:.1f} GiB"
    if total < need:
        return Finding(
            "memory", False, f"{text}; the model {settings.model} needs about {need:.1f}: rent a machine with "
            "more, raise the container's limit, or set ITEMFORGE_MODEL to a smaller one",
        )  # fmt: skip
    return Finding("memory", True, f"{text}; the model {settings.model} needs about {need:.1f}")


def _memory_limit() -> int:
    bytes_here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(bytes_here, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return bytes_here


def _weights(settings: WorkerSettings) -> int:
    from itemforge.styles.models import find_model

    try:
        path = find_model(settings.model, settings.home)
    except ItemForgeError:
        return 0  # the check of the model says it
    files = [path] if path.is_file() else path.rglob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def device(settings: WorkerSettings) -> Finding:
    """The GPU and whether this torch can use it, or the CPU."""
    if importlib.util.find_spec("torch") is None:
        return Finding("device", None, "torch is not installed: pip install 'itemforge[worker]' to draw here")
    import torch

    driver = _driver()
    if torch.cuda.is_available():
        return _gpu(driver)
    wanted = settings.device.startswith("cuda")
    if driver is not None:
        why = (
            f"torch {torch.__version__} is the build for the CPU"
            if torch.version.cuda is None
            else f"torch {torch.__version__} is built for CUDA {torch.version.cuda}, which that driver may not know"
        )
        return Finding(
            "device", False, f"there is a GPU ({driver}), and torch does not use it: {why}; update the driver, or "
            "install torch from the index for it (deploy/vm/setup_vm.sh chooses one)",
        )  # fmt: skip
    if wanted:
        return Finding(
            "device", False, "ITEMFORGE_DEVICE asks for CUDA, and there is no working driver: see nvidia-smi, "
            "install nvidia-driver-580-server; in a container: --gpus all and nvidia-container-toolkit",
        )  # fmt: skip
    return Finding("device", True, f"CPU, {os.cpu_count()} cores, torch {torch.__version__}")


def _driver() -> str | None:
    """What nvidia-smi says of the first GPU, or None where it finds none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)  # noqa: S603  # no input in it
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return lines[0].replace(", ", ", driver ") if done.returncode == 0 and lines else None


def _gpu(driver: str | None) -> Finding:
    import torch

    facts = torch.cuda.get_device_properties(0)
    gib = facts.total_memory / _GIB
    text = (
        f"{driver or facts.name}, {gib:.0f} GiB, compute capability {facts.major}.{facts.minor}, "
        f"torch {torch.__version__} for CUDA {torch.version.cuda}"
    )
    kernels = [arch.removeprefix("sm_") for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    least = min((int(digits) for digits in kernels if digits.isdigit()), default=0)
    if facts.major * 10 + facts.minor < least:
        return Finding(
            "device", False, f"{text}, which has code for {least / 10} and newer only: rent a newer GPU"
        )
    if gib < _GPU_GIB:
        return Finding(
            "device",
            False,
            f"{text}; {_GPU_GIB} GiB are the least for Stable Diffusion 1.5: rent a larger one",
        )
    return Finding("device", True, text)


async def clock(settings: WorkerSettings) -> Finding:
    """This machine's clock against the gateway's."""
    import httpx

    trust = client_context(settings.ca_file)
    try:
        async with httpx.AsyncClient(base_url=settings.api_gateway_url, timeout=5, verify=trust) as http:
            before = time.time()
            answer = await http.get("/healthz")
            after = time.time()
        told = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError):
        return Finding("clock", None, "no gateway answers, so there is nothing to compare it with")
    # The header has whole seconds, and was written somewhere between question and answer.
    off = max(told - after, before - told - 1, 0.0)
    if off > _SKEW:
        return Finding(
            "clock", False, f"it differs from the gateway's by {off:.0f} s, so signed addresses and tokens are "
            "refused: timedatectl set-ntp true, on the machine that is wrong",
        )  # fmt: skip
    return Finding("clock", True, f"it agrees with the gateway's to {max(off, 1):.0f} s")


async def models(settings: WorkerSettings) -> Finding:
    """The sha256 of everything that was pulled, and of the LoRAs of the packs at home."""
    return await asyncio.to_thread(_models, settings.home)


def _models(place: Path) -> Finding:
    from itemforge.pulling.record import damaged, read_record
    from itemforge.styles.local import LocalPacks

    records = [*place.glob("models/*/pulled.json"), *place.glob("models/*.pulled.json")]
    records += place.glob("loras/*.pulled.json")
    whole: list[str] = []
    wrong: list[str] = []
    for file in sorted(records):
        folder = file.parent
        name = folder.name if file.name == "pulled.json" else file.name.removesuffix(".pulled.json")
        record = read_record(file)
        if record is None:
            wrong.append(f"{file} cannot be read: itemforge models pull {name} --replace")
        elif broken := damaged(record, folder):
            wrong.append(
                f"{name}: {', '.join(broken)} is not as it came: itemforge models pull {record.source} --replace"
            )
        else:
            whole.append(name)
    for pack in LocalPacks(place).packs.values():
        for lora in pack.pack.loras:
            try:
                if pack.lora_file(lora) is not None:
                    whole.append(pack.pack.name)
            except ItemForgeError as error:
                wrong.append(f"{error}; itemforge models pull {pack.pack.id} brings its own again")
    if wrong:
        return Finding("models", False, "; ".join(wrong))
    return Finding(
        "models", True, f"sha256 as recorded: {', '.join(dict.fromkeys(whole)) or 'nothing pulled'}"
    )
