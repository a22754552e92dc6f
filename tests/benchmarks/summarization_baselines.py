"""Print the ceiling and trivial baselines of the built-in summarization corpora, in ROUGE points.

    python tests/benchmarks/summarization_baselines.py [WORKLOAD ...]

The ceiling is the score of the true summaries, of which three in ten references state one fact
wrongly. 'lead-k' are a source's first k sentences (a dialogue's turns). 'another row' are other
sources' true summaries: what a model knows that has not read the source.
"""

import argparse
import importlib

from workloads.metrics import rouge
from workloads.parts.summarization import BUILTIN_ROWS
from workloads.parts.summarization_corpus import Row, lead


def predictions(rows: list[Row]) -> dict[str, list[str]]:
    truths = [row.truth for row in rows]
    return {
        "ceiling": truths,
        "lead-1": [lead(row.source, 1) for row in rows],
        "lead-3": [lead(row.source, 3) for row in rows],
        "another row": truths[1:] + truths[:1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("xsum", "cnn_dailymail", "samsum")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    arguments = parser.parse_args()
    print(f"{'':14} {'':11} {'':12}", *(f"{name:>9}" for name in rouge.names))
    for name in arguments.workloads or names:
        generator = importlib.import_module(f"workloads.{name}.generator")
        splits = generator.generate(arguments.seed, BUILTIN_ROWS)
        for split in ("validation", "test"):
            references = [row.reference for row in splits[split]]
            for kind, texts in predictions(splits[split]).items():
                means = [100 * values.mean() for values in rouge.score(texts, references).values()]
                print(f"{name:14} {split:11} {kind:12}", *(f"{mean:9.2f}" for mean in means))


if __name__ == "__main__":
    main()
