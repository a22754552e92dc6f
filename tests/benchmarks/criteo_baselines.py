"""Print the baselines and the least loss of the built-in clicks.

    python tests/benchmarks/criteo_baselines.py [--seed SEED] [--rows ROWS]

'base rate' predicts the training rows' share of clicks for all, 'regression' is a logistic
regression on the table's rows of all columns and the logarithms of the counts, trained on the last
ROWS training rows. 'Bayes' is the loss of the probabilities that the labels were drawn by.
"""

import argparse

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from algoperf.data.formats.criteo_columns import COUNTS
from workloads.criteo1tb import WORKLOAD, data, generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the built-in rows")
    parser.add_argument("--rows", type=int, default=generator.ROWS["train"], help="to train on")
    arguments = parser.parse_args()
    table = WORKLOAD.scales["mini"].data["rows"]
    splits = data.load("builtin", table, arguments.seed).splits
    train = splits["train"]
    seen, labels = described(train["inputs"][-arguments.rows :], table), train["targets"]
    model = LogisticRegression(max_iter=100, C=0.1)
    model.fit(seen, labels[-arguments.rows :])
    for split in ("validation", "test"):
        rows, clicks = splits[split], generator.generate(split, arguments.seed)
        predictions = {
            "base rate": np.full(len(rows), labels.mean(dtype=np.float64)),
            "regression": model.predict_proba(described(rows["inputs"], table))[:, 1],
            "Bayes": clicks.probability_N,
        }
        for name, each in predictions.items():
            print(f"{split:12}{name:12}{log_loss(rows['targets'], each):.4f}")


def described(inputs_NI: np.ndarray, table: int) -> sparse.csr_matrix:
    counts_NI, columns_NC = inputs_NI[:, :COUNTS], inputs_NI[:, COUNTS:]
    N, C = columns_NC.shape
    pointers = np.arange(0, N * C + 1, C)
    ones = np.ones(N * C, np.float32)
    one_hot = sparse.csr_matrix((ones, columns_NC.ravel(), pointers), (N, table))
    logarithms = np.log1p(np.maximum(counts_NI, 0))
    return sparse.hstack([one_hot, logarithms, counts_NI < 0], format="csr", dtype=np.float32)


if __name__ == "__main__":
    main()
