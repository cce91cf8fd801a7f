"""How long a change of style takes: merging a LoRA into the weights from their pristine copies.

    python bench/style_swap.py [--rank 16] [--swaps 20] [--out FILE]

Two LoRAs with random weights on every attention projection of the starter's UNet and text encoder take turns.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from report import Table, write
from safetensors.torch import save_file

from itemforge.engine.lora import Merger
from itemforge.engine.model import Model, load_model
from itemforge.engine.rows import LoraRef
from itemforge.styles.files import file_sha256
from itemforge.styles.models import starter_dir

ENDINGS = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


def random_lora(model: Model, folder: Path, seed: int, rank: int) -> LoraRef:
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, part in (("unet", model.parts.unet), ("text_encoder", model.parts.text_encoder)):
        for path, module in part.named_modules():
            if isinstance(module, torch.nn.Linear) and path.endswith(ENDINGS):
                out_size, in_size = module.weight.shape
                tensors[f"{name}.{path}.lora_A.weight"] = torch.randn(rank, in_size, generator=generator) / 50
                tensors[f"{name}.{path}.lora_B.weight"] = (
                    torch.randn(out_size, rank, generator=generator) / 50
                )
    path = folder / f"{seed}.safetensors"
    save_file(tensors, path)
    return LoraRef(path, file_sha256(path), 1.0)


def measure(rank: int, swaps: int) -> Table:
    model = load_model(starter_dir(), torch.device("cpu"), torch.float32)
    merger = Merger(model.parts.unet, model.parts.text_encoder)
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        one, other = (random_lora(model, Path(folder), seed, rank) for seed in (1, 2))
        turns = [("first use of a style: read, check, merge", (one,)), ("", (other,))]
        turns += [("swap to a style in memory", ((one,), (other,))[n % 2]) for n in range(swaps)]
        turns += [("back to no style", ()), ("", (one,)), ("back to no style", ())]
        for name, loras in turns:
            start = time.perf_counter()
            merger.apply(loras)
            taken.setdefault(name, []).append(1000 * (time.perf_counter() - start))
    table = Table(f"Style swap with LoRAs of rank {rank} on the starter", ("what", "median ms", "longest ms"))
    for name, values in taken.items():
        if name:
            table.add(name, f"{statistics.median(values):.1f}", f"{max(values):.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    write(measure(options.rank, options.swaps), options.out)


if __name__ == "__main__":
    main()
