"""Recommend items with a two-tower model of users and items.

    python examples/recommend.py                       # synthetic data: one to two minutes
    python examples/recommend.py --data pairs.csv      # lines of user,item, with or without header
    python examples/recommend.py --embedding-dim 64 --steps 4000

Two items of each user are held out. The test measures whether they are among the first k of all
items that the user did not choose in the training data, and compares with a random order, the most
popular items, and the untrained towers. The negatives of a pair are the other pairs of the batch.
Popular items are negatives more often, which decreases their scores (Yi et al., 2019,
https://doi.org/10.1145/3298689.3346996); the last row of the table corrects for this.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
from keras import layers

import keras_metric
from keras_metric import losses, viz
from keras_metric.search import Index

CUTS = (1, 10, 50)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="CSV of user,item")
    parser.add_argument("--embedding-dim", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("runs/recommend"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    return parser.parse_args()


def make_pairs(users, items, each, rng):
    """Return pairs of users and items; users choose near and popular items more often."""
    kinds = rng.normal(size=(12, 8))
    kind = rng.integers(len(kinds), size=items)
    item = kinds[kind] + 0.6 * rng.normal(size=(items, 8))
    # A user prefers two kinds of items.
    likes = rng.integers(len(kinds), size=(users, 2))
    user = 0.7 * kinds[likes[:, 0]] + 0.3 * kinds[likes[:, 1]] + 0.3 * rng.normal(size=(users, 8))
    logits = 1.5 * user @ item.T + 1.2 * rng.gumbel(size=items)
    # The largest logits with Gumbel noise are a sample without replacement.
    chosen = np.argsort(-(logits + 2 * rng.gumbel(size=logits.shape)), axis=1)[:, :each]
    return np.repeat(np.arange(users), each), chosen.ravel(), kind


def read_pairs(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row[:2] for row in csv.reader(file) if row]
    if [cell.strip().lower() for cell in rows[0]] == ["user", "item"]:
        rows = rows[1:]
    if not rows or any(len(row) < 2 for row in rows):
        sys.exit(f"{path} must have lines of the form user,item.")
    users, items = np.unique(np.array(rows), axis=0).T
    return np.unique(users, return_inverse=True)[1], np.unique(items, return_inverse=True)[1]


def split(users, items, rng, num_test=2):
    """Return training rows, and `num_test` rows of each user with at least twice as many."""
    order = rng.permutation(len(users))
    order = order[np.argsort(users[order], kind="stable")]
    counts = np.bincount(users)
    position = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    test = (position < num_test) & (counts[users[order]] >= 2 * num_test)
    # Exclude items that are not in the training data; their vectors are random.
    test &= np.isin(items[order], items[order[~test]])
    return order[~test], order[test]


def build_tower(count, seed):
    """Return a tower that takes a number only; concatenate features of users or items if any."""
    return keras.Sequential(
        [
            layers.Input((), dtype="int32"),
            layers.Embedding(
                count, 64, embeddings_initializer=keras.initializers.RandomNormal(seed=seed)
            ),
            layers.Dropout(0.2),
            layers.Dense(64, "gelu"),
        ]
    )


def recall(scores, users, items, train, cuts=CUTS):
    """Return the fraction of (user, item) among the first k items that are not in `train`.

    `scores` has a row for each user and a column for each item.
    """
    scores = np.array(scores, "float32")
    own = scores[users, items]
    scores[train] = -np.inf
    # Exclude the other held-out items of the user from the ranking.
    ranks = np.empty(len(users), int)
    for user in np.unique(users):
        rows = np.flatnonzero(users == user)
        others = scores[user].copy()
        others[items[rows]] = -np.inf
        # Of items with equal scores, half are ranked first.
        above = (others > own[rows, None]).sum(1) + (others == own[rows, None]).sum(1) // 2
        ranks[rows] = above
    return [float((ranks < k).mean()) for k in cuts]


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    rng = np.random.default_rng(arguments.seed)
    keras.utils.set_random_seed(arguments.seed)
    kind = None
    if arguments.data:
        users, items = read_pairs(arguments.data)
    else:
        print("no --data: using synthetic users and items")
        size = (200, 150, 10) if arguments.short else (2000, 1000, 20)
        users, items, kind = make_pairs(*size, rng)
    if arguments.short:
        arguments.steps = 60
    num_users, num_items = int(users.max()) + 1, int(items.max()) + 1
    train, test = split(users, items, rng)
    if not len(test):
        sys.exit("Users with at least four items each are needed. Received: none.")
    print(f"{num_users:,} users, {num_items:,} items: {len(train):,} training pairs, ", end="")
    print(f"{len(test):,} test pairs", flush=True)

    model = keras_metric.TwoTowerModel(
        build_tower(num_users, arguments.seed),
        build_tower(num_items, arguments.seed + 1),
        embedding_dim=arguments.embedding_dim,
    )
    batch = 256
    learning_rate = keras.optimizers.schedules.CosineDecay(3e-3, arguments.steps)
    model.compile(keras.optimizers.Adam(learning_rate), losses.ClipLoss(learn_temperature=True))

    def embed():
        towers = (model.first_encoder, num_users), (model.second_encoder, num_items)
        return [
            tower.predict(np.arange(count, dtype="int32"), batch_size=1024, verbose=0)
            for tower, count in towers
        ]

    popular = np.bincount(items[train], minlength=num_items).astype("float32")
    before = embed()
    # With the item as y, two users of a batch with the same item are not negatives.
    pairs = {"first": users[train].astype("int32"), "second": items[train].astype("int32")}
    epochs = max(1, round(arguments.steps / -(-len(train) // batch)))
    model.fit(pairs, pairs["second"], batch_size=batch, epochs=epochs, verbose=0)
    after = embed()
    # Items are negatives in proportion to their popularity. Therefore cosine * scale approximates
    # log p(item | user) - log p(item) + constant of the user. Add log p(item) again:
    scale = float(keras.ops.convert_to_numpy(model.loss.logit_scale.factor))
    log_popular = np.log(np.maximum(popular, 0.5) / popular.sum())
    with_popularity = [
        np.c_[scale * after[0], np.ones(num_users)].astype("float32"),
        np.c_[after[1], log_popular].astype("float32"),
    ]
    rows = {
        "most popular": np.broadcast_to(popular, (num_users, num_items)),
        "untrained": before[0] @ before[1].T,
        "trained, by cosine": after[0] @ after[1].T,
        "trained, with popularity": with_popularity[0] @ with_popularity[1].T,
    }
    print(f"\n{'recall of held-out items':28}" + "".join(f"{f'first {k}':>11}" for k in CUTS))
    left = num_items - np.bincount(users[train], minlength=num_users)[users[test]]
    at_random = (float(np.minimum(k / left, 1).mean()) for k in CUTS)
    print(f"{'random':28}" + "".join(f"{value:11.3f}" for value in at_random))
    for name, scores in rows.items():
        found = recall(scores, users[test], items[test], (users[train], items[train]))
        print(f"{name:28}" + "".join(f"{value:11.3f}" for value in found))

    # Recommend with an index of the items; the dot product adds log p(item) to cosine * scale.
    index = Index(arguments.embedding_dim + 1, metric="dot", description="items of the example")
    index.add(with_popularity[1], np.arange(num_items), ids=np.arange(num_items))
    user = int(users[test][0])
    chosen = set(items[train][users[train] == user].tolist())
    matches = index.search(with_popularity[0][[user]], k=len(chosen) + 5)[0]
    best = [match.id for match in matches if match.id not in chosen][:5]
    print(f"\nuser {user} chose {sorted(chosen)}")
    print(f"recommended: {best}; held out: {items[test][users[test] == user].tolist()}")

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.first_encoder.save(arguments.out / "users.keras")
    model.second_encoder.save(arguments.out / "items.keras")
    index.save(arguments.out / "index")
    # Color the items by kind if they are synthetic, otherwise by popularity.
    labels = kind if kind is not None else np.digitize(popular, np.quantile(popular, (0.5, 0.9)))
    panels = {"untrained": before[1], "trained": after[1]}
    viz.plot_embeddings(panels, labels, method="tsne", max_points=1000).savefig(
        arguments.out / "items.png", dpi=120
    )
    print(f"\n{arguments.out}: users.keras, items.keras, index, items.png")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
