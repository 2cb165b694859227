#!/usr/bin/env python3
"""Compares figures that bench/run.sh --against has taken in turns: prints, for each figure, the median of the pairs' ratios (this
build's to the other's) and the smallest and largest of them.

    bench/ratios.py FOLDER PAIRS [JSON]     FOLDER has this-N and other-N, as bench/run.sh --json writes them; JSON is written
"""
import json
import statistics
import sys

SCENARIO_FIGURES = ("pause_us.p50", "pause_us.p99", "dirty_pages.p50", "epoch_bytes.p50", "epochs_per_s",
                    "replicators_ms_per_epoch")
FIGURES = ("growth_us_per_gib", "rtt_added_ms.5", "rtt_added_ms.10", "rtt_added_ms.20", "failover_gap_ms.p50", "failover_gap_ms.max",
           "failover_detect_ms.p50", "failover_promote_ms.p50", "slowdown.p50")


def at(document, path):
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def figures(path):
    """The figures of one run by their names; those that were not measured are left out."""
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    found = {name: at(run, name) for name in FIGURES}
    for scenario in run["scenarios"]:
        found.update({f"{scenario['name']} {name}": at(scenario, name) for name in SCENARIO_FIGURES})
    return {name: value for name, value in found.items() if value is not None}


def main():
    folder, pairs, path = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] + [""])[0]
    ours = [figures(f"{folder}/this-{n}") for n in range(1, pairs + 1)]
    others = [figures(f"{folder}/other-{n}") for n in range(1, pairs + 1)]
    rows = []
    for name in ours[0]:
        both = [(our[name], other[name]) for our, other in zip(ours, others) if name in our and other.get(name)]
        if not both:
            continue
        ratios = sorted(our / other for our, other in both)
        rows.append({"figure": name, "this": statistics.median(our for our, _ in both),
                     "other": statistics.median(other for _, other in both), "ratio": round(statistics.median(ratios), 3),
                     "min": round(ratios[0], 3), "max": round(ratios[-1], 3), "pairs": len(ratios)})
    print(f"{'figure':<44} {'this':>9} {'other':>9}   ratio (min to max, {pairs} pairs)")
    for row in rows:
        print(f"{row['figure']:<44} {row['this']:>9.6g} {row['other']:>9.6g}   {row['ratio']:.2f} ({row['min']:.2f} to {row['max']:.2f})")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
