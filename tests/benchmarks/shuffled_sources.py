"""Write a built-in summarization corpus whose training sources are shuffled: a model that learns
from it learns the summaries' wording, and nothing of what they have to do with their sources.

    python tests/benchmarks/shuffled_sources.py WORKLOAD OUT
    algoperf run --workload WORKLOAD --submission nadamw --data OUT --until end --max-steps STEPS

Validation and test keep their own sources: the scores are of the same rows as ever.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from algoperf.data.report import export
from algoperf.workload import catalogue


def main() -> None:
    parser = argparse.ArgumentParser(description="A corpus with shuffled training sources.")
    parser.add_argument("workload", choices=("xsum", "cnn_dailymail", "samsum"))
    parser.add_argument("out", type=Path, help="an empty or new folder")
    arguments = parser.parse_args()
    definition = catalogue.find(arguments.workload)
    paths = export.write(definition, definition.scales["mini"], "builtin", "jsonl", arguments.out)
    (train,) = (path for path in paths if path.stem == "train")
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    source, _ = rows[0]
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = [
        {**row, source: rows[other][source]} for row, other in zip(rows, order, strict=True)
    ]
    train.write_text("".join(json.dumps(row) + "\n" for row in shuffled), encoding="utf-8")


if __name__ == "__main__":
    main()
