"""The figure of the front page: ``python docs/make_figures.py`` draws it from ``results/``."""

import json
from pathlib import Path

from labo_fairseq.reporting.figure import PALETTE, save_png

ROOT = Path(__file__).resolve().parents[1]
TEST_SET = "test_2016_flickr"
NAMES = {"ls-seed1": "label smoothing", "labo-seed1": "LABO"}


def hypothesis_probabilities(path: Path) -> None:
    """Histograms of the probabilities of hypothesis tokens: figure 2 of the paper."""
    analysis = json.loads((ROOT / "results/multi30k/analysis/confidence.json").read_text(encoding="utf-8"))
    histograms = {
        record["system"]: record["chosen"]["histogram"]
        for record in analysis["distributions"]
        if record["test"] == TEST_SET and record["part"] == "all"
    }

    def paint(figure):
        axes = figure.add_subplot()
        for (system, name), color in zip(NAMES.items(), PALETTE):
            shares = [100 * share for share in histograms[system]]
            edges = [number / len(shares) for number in range(len(shares) + 1)]
            axes.stairs(shares, edges, fill=True, color=color, alpha=0.25)
            axes.stairs(shares, edges, color=color, linewidth=2)
            peak = max(range(len(shares)), key=shares.__getitem__)
            axes.annotate(
                name, ((edges[peak] + edges[peak + 1]) / 2, shares[peak]), (0, 5), textcoords="offset points",
                ha="center", color=color, weight="bold",
            )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 28), xlabel="probability of a hypothesis token", ylabel="tokens (%)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)

    save_png(path, (7.6, 2.5), paint)


if __name__ == "__main__":
    hypothesis_probabilities(ROOT / "docs/figures/hypothesis-probabilities.png")
