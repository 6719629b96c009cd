"""Training steps in float32 and bf16 on this machine's CPU: process seconds of forward and backward.

    python benchmarks/training_precision.py [--threads 1] [--rounds 5]

The two networks of the shipped recipes, channels last; rounds are interleaved. Accuracy beside speed: docs/figures.md.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from tagmask.backbones.build import build_backbone

NETWORKS = {
    "mobilenetv2_100, 16 x 256 px (msrc)": ("mobilenetv2_100", {"pad_type": "same"}, 256),
    "resnet10t small, 16 x 160 px (demo)": ("resnet10t", {"channels": (32, 64, 128, 192), "stem_width": 24}, 160),
    "resnet50, 4 x 320 px (voc12)": ("resnet50", {}, 320),
}


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'network':38} {'float32':>16} {'bf16':>16} {'ratio':>6}   (forward + backward, seconds of CPU)")
    for name, (backbone, args, size) in NETWORKS.items():
        model = build_backbone(backbone, args=args).to(memory_format=torch.channels_last).train()
        images = torch.randn(4 if size == 320 else 16, 3, size, size).to(memory_format=torch.channels_last)
        seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(options.rounds + 1):
            for autocast, found in seconds.items():
                begun = time.process_time()
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    features = model(images)[model.n_stages]
                middle = time.process_time()
                features.float().mean().backward()
                found.append((middle - begun, time.process_time() - middle))
        medians = {way: np.median(np.array(found[1:]), axis=0) for way, found in seconds.items()}
        cells = [f"{forward:.2f} + {backward:.2f}" for forward, backward in medians.values()]
        print(f"{name:38} {cells[0]:>16} {cells[1]:>16} {medians[False].sum() / medians[True].sum():5.2f}x")


if __name__ == "__main__":
    main()
