"""Peak memory of encoding one image, in a process that does nothing else.

`python -m benchmarks.memory NAME SIDE` prints one line of JSON: peak resident bytes, and those before encoding.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from benchmarks.common import peak_rss, photo

NAMES = ("linocut", "mobilesam", "sam")


def main() -> None:
    """Encode once and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("side", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--random-weights", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = photo(options.side)
    if options.name == "linocut":
        from benchmarks import ours

        model = ours.build(options.weights, random=options.random_weights).model
        before = peak_rss()
        model.encode(image)
    else:
        from benchmarks.peers import sam, tiny_vit

        encoder = sam.build_sam().vision_encoder if options.name == "sam" else tiny_vit.build()
        before = peak_rss()
        sam.encode(encoder, image)
    print(json.dumps({"peak": peak_rss(), "before": before}))


if __name__ == "__main__":
    main()
