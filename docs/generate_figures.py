"""Write the README's figures from docs/figures.json, which `python -m benchmarks --json` made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

DATA = Path(__file__).with_name("figures.json")
README = Path(__file__).parents[1] / "README.md"
SECTION = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
NETWORKS = {
    "import": "import alone", "mlp": "MLP, batch 64", "lenet": "LeNet, batch 100",
    "resnet18_small": "ResNet-18 32x32, batch 64", "gpt": "GPT stack, batch 16",
}  # fmt: skip


def section(data: dict[str, Any]) -> str:
    """Return the text between the README's two marks."""
    return "\n".join([
        fill(
            f"Measured on {data['date']} on {data['threads']} cores of an {data['processor']} with "
            f"{data['peak_flops_per_s'] / 1e9:.0f} GFLOP/s in float32 and "
            f"{data['copy_bytes_per_s'][str(256 << 20)] / 1e9:.0f} GB/s of copying from memory; "
            f"{_versions(data['versions'])}.",
            width=100,
        ),
        "",
        "| row | graphc | best peer | | ratio | goal |",
        "|---|--:|--:|---|--:|--:|",
        *map(_row, data["rows"]),
        "\nFrom process start to the first trained batch, with an empty and a filled cache, and "
        "the most\nmemory held:\n",
        "| network | graphc | torch | jax |",
        "|---|---|---|---|",
        *_starts(data["start_up"]),
        "",
    ])  # fmt: skip


def _versions(versions: dict[str, str]) -> str:
    shown = ("python", "numpy", "torch", "jax", "onnxruntime")
    return ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)


def _row(row: dict[str, Any]) -> str:
    seconds, peer = row["median_s"], row["best_peer"]
    return (
        f"| {row['name']} | {_duration(seconds['graphc'])} | {_duration(seconds[peer])} "
        f"| {peer} | {row['ratio']:.2f} | {row['goal']} |"
    )


def _starts(started: list[dict[str, Any]]) -> list[str]:
    networks = dict.fromkeys(s["network"] for s in started)
    return [
        f"| {NETWORKS[network]} | "
        + " | ".join(_start(started, network, side) for side in ("graphc", "torch", "jax"))
        + " |"
        for network in networks
    ]


def _start(started: list[dict[str, Any]], network: str, framework: str) -> str:
    for s in started:
        if (s["network"], s["framework"]) == (network, framework):
            cold, warm = median(s["cold_s"]), median(s["warm_s"])
            return f"{cold:.2f} / {warm:.2f} s, {s['peak_bytes'] / 1e6:.0f} MB"
    return "-"


def _duration(seconds: float) -> str:
    unit, factor = ("us", 1e6) if seconds < 1e-3 else ("ms", 1e3)
    return f"{seconds * factor:.3g} {unit}"


def page() -> str:
    """Return the README with the figures of docs/figures.json."""
    text = section(json.loads(DATA.read_text(encoding="utf-8")))
    return SECTION.sub(lambda _: text, README.read_text(encoding="utf-8"))


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8", newline="\n")
