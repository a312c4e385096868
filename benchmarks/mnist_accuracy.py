"""LeNet on the full MNIST: test accuracy after 3 epochs, for several seeds.

    python benchmarks/mnist_accuracy.py --data DIR [--seeds 5]

Batch 100, Xavier, Adam at 1e-3 and at 2e-4 in the third epoch, compiled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run the example for each seed and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with the four MNIST files")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    example = Path(__file__).parent.parent / "examples" / "mnist.py"
    accuracies = []
    for seed in range(1, options.seeds + 1):
        command = [sys.executable, str(example), "--data", options.data, "--seed", str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        accuracies.append(float(done.stdout.split()[-1]))
        print(f"seed {seed}: {accuracies[-1]:.4f}", flush=True)
    print(f"worst of {len(accuracies)}: {min(accuracies):.4f}")


if __name__ == "__main__":
    main()
