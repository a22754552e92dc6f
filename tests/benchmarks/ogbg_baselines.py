"""Print the baselines and the ceiling of the built-in molecules, in mean average precision.

    python tests/benchmarks/ogbg_baselines.py [--seed SEED]

'sizes' is a logistic regression on the numbers of atoms and bonds, 'counts' one on how many atoms
of each element, of each degree and in rings, and how many bonds of each kind a molecule has; a
regression for each task. The ceiling is the mean average precision of the labels without errors.
"""

import argparse

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from workloads.metrics.mean_average_precision import average_precisions
from workloads.ogbg import generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the built-in rows")
    seed = parser.parse_args().seed
    splits = {split: generator.generate(split, seed) for split in generator.ROWS}
    for split in ("validation", "test"):
        scores = {
            "positives": np.zeros(splits[split].labels_GT.shape),
            "sizes": regressed(splits["train"], splits[split], sizes),
            "counts": regressed(splits["train"], splits[split], counts),
            "ceiling": splits[split].true_GT.astype(float),
        }
        labels_GT = splits[split].labels_GT
        known_GT = ~np.isnan(labels_GT)
        print(split)
        for name, scores_GT in scores.items():
            values_T = average_precisions(labels_GT > 0.5, scores_GT, known_GT)
            tasks = " ".join(f"{value:.2f}" for value in values_T)
            print(f"  {name:10}{values_T.mean():8.4f}   {tasks}")


def sizes(graphs) -> np.ndarray:
    return np.stack([graphs.nodes, graphs.bonds], axis=1)


def counts(graphs) -> np.ndarray:
    graph_of_node = np.repeat(np.arange(len(graphs)), graphs.nodes)
    graph_of_bond = np.repeat(np.arange(len(graphs)), graphs.bonds)
    columns = list(sizes(graphs).T)
    for owner, features in (
        (graph_of_node, graphs.node_features[:, [0, 2, 4, 8]]),
        (graph_of_bond, graphs.bond_features[:, :1]),
    ):
        for feature in features.T:
            for value in np.unique(feature):
                columns.append(np.bincount(owner[feature == value], minlength=len(graphs)))
    return np.stack(columns, axis=1)


def regressed(train, split, describe) -> np.ndarray:
    seen, asked = describe(train.graphs), describe(split.graphs)
    scores = []
    for labels_G in train.labels_GT.T:
        known_G = ~np.isnan(labels_G)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(seen[known_G], labels_G[known_G])
        scores.append(model.predict_proba(asked)[:, 1])
    return np.stack(scores, axis=1)


if __name__ == "__main__":
    main()
