"""Recommend: a tower for users and one for items, learned from who took what.

    python examples/recommend.py                       # drawn users and items: a minute or two
    python examples/recommend.py --data pairs.csv      # lines of user,item, with a header or not
    python examples/recommend.py --embedding-dim 64 --steps 4000

Of each user's items two are kept back; what is measured is whether they are among the first k of
all items that the user has not taken in training, beside chance, the most popular items, and the
towers before training. The other pairs of a batch are the negatives, so items that are taken
often are negatives often and are held down for it (Yi et al., 2019,
https://doi.org/10.1145/3298689.3346996); the last row of the table gives that back.
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
    parser.add_argument("--short", action="store_true", help="a few batches, to see that it runs")
    return parser.parse_args()


def draw_pairs(users, items, each, rng):
    """Users and items lie in a space of tastes; near and popular items are taken more often."""
    kinds = rng.normal(size=(12, 8))
    kind = rng.integers(len(kinds), size=items)
    item = kinds[kind] + 0.6 * rng.normal(size=(items, 8))
    # A user likes two kinds of things, one more than the other.
    likes = rng.integers(len(kinds), size=(users, 2))
    user = 0.7 * kinds[likes[:, 0]] + 0.3 * kinds[likes[:, 1]] + 0.3 * rng.normal(size=(users, 8))
    wish = 1.5 * user @ item.T + 1.2 * rng.gumbel(size=items)
    # Adding Gumbel noise and taking the largest draws without replacement.
    taken = np.argsort(-(wish + 2 * rng.gumbel(size=wish.shape)), axis=1)[:, :each]
    return np.repeat(np.arange(users), each), taken.ravel(), kind


def read_pairs(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row[:2] for row in csv.reader(file) if row]
    if [cell.strip().lower() for cell in rows[0]] == ["user", "item"]:
        rows = rows[1:]
    if not rows or any(len(row) < 2 for row in rows):
        sys.exit(f"{path} must have lines of user,item.")
    users, items = np.unique(np.array(rows), axis=0).T
    return np.unique(users, return_inverse=True)[1], np.unique(items, return_inverse=True)[1]


def split(users, items, rng, kept=2):
    """Rows to train on, and `kept` rows of each user who has at least twice as many."""
    order = rng.permutation(len(users))
    order = order[np.argsort(users[order], kind="stable")]
    counts = np.bincount(users)
    place = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    test = (place < kept) & (counts[users[order]] >= 2 * kept)
    # An item that training never shows has a vector that says nothing.
    test &= np.isin(items[order], items[order[~test]])
    return order[~test], order[test]


def build_tower(count, seed):
    """Nothing is known of a user or an item but its number; features would stand beside it."""
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


def recall(scores, users, items, seen, cuts=CUTS):
    """Share of (user, item) that are among the first k of what the user has not taken yet.

    `scores` has a row for each user and a column for each item.
    """
    scores = np.array(scores, "float32")
    mine = scores[users, items]
    scores[seen] = -np.inf
    # Two kept items of one user do not stand in each other's way.
    ranks = np.empty(len(users), int)
    for user in np.unique(users):
        rows = np.flatnonzero(users == user)
        others = scores[user].copy()
        others[items[rows]] = -np.inf
        # Of those with an equal score half come first.
        above = (others > mine[rows, None]).sum(1) + (others == mine[rows, None]).sum(1) // 2
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
        print("no --data: drawn users and items")
        size = (200, 150, 10) if arguments.short else (2000, 1000, 20)
        users, items, kind = draw_pairs(*size, rng)
    if arguments.short:
        arguments.steps = 60
    num_users, num_items = int(users.max()) + 1, int(items.max()) + 1
    train, test = split(users, items, rng)
    if not len(test):
        sys.exit("needs users with at least four items each. Found none.")
    print(f"{num_users:,} users, {num_items:,} items: {len(train):,} pairs to train on,")
    print(f"{len(test):,} kept back", flush=True)

    model = keras_metric.TwoTowerModel(
        build_tower(num_users, arguments.seed),
        build_tower(num_items, arguments.seed + 1),
        embedding_dim=arguments.embedding_dim,
    )
    batch = 256
    rate = keras.optimizers.schedules.CosineDecay(3e-3, arguments.steps)
    model.compile(keras.optimizers.Adam(rate), losses.ClipLoss(learn_temperature=True))

    def embed():
        towers = (model.first_encoder, num_users), (model.second_encoder, num_items)
        return [
            tower.predict(np.arange(count, dtype="int32"), batch_size=1024, verbose=0)
            for tower, count in towers
        ]

    popular = np.bincount(items[train], minlength=num_items).astype("float32")
    mine = (users[train], items[train])
    before = embed()
    # The number of the item as y: two users of a batch who took one item are no negatives.
    pairs = {"first": users[train].astype("int32"), "second": items[train].astype("int32")}
    epochs = max(1, round(arguments.steps / -(-len(train) // batch)))
    model.fit(pairs, pairs["second"], batch_size=batch, epochs=epochs, verbose=0)
    after = embed()
    # In a batch an item is a negative as often as it is taken, so the cosine times its scale comes
    # to be log p(item | user) - log p(item), but for a number of the user. Popularity comes back:
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
        "trained, and popularity": with_popularity[0] @ with_popularity[1].T,
    }
    print(f"\n{'kept back, found among the':28}" + "".join(f"{f'first {k}':>11}" for k in CUTS))
    left = num_items - np.bincount(users[train], minlength=num_users)[users[test]]
    by_chance = (float(np.minimum(k / left, 1).mean()) for k in CUTS)
    print(f"{'chance':28}" + "".join(f"{value:11.3f}" for value in by_chance))
    for name, scores in rows.items():
        found = recall(scores, users[test], items[test], mine)
        print(f"{name:28}" + "".join(f"{value:11.3f}" for value in found))

    # What serves users: the items in an index, with the two parts of the score in one product.
    index = Index(arguments.embedding_dim + 1, metric="dot", description="items of the example")
    index.add(with_popularity[1], np.arange(num_items), ids=np.arange(num_items))
    user = int(users[test][0])
    taken = set(items[train][users[train] == user].tolist())
    matches = index.search(with_popularity[0][[user]], k=len(taken) + 5)[0]
    best = [match.id for match in matches if match.id not in taken][:5]
    print(f"\nuser {user} took {sorted(taken)}")
    print(f"recommended: {best}; kept back: {items[test][users[test] == user].tolist()}")

    arguments.out.mkdir(parents=True, exist_ok=True)
    model.first_encoder.save(arguments.out / "users.keras")
    model.second_encoder.save(arguments.out / "items.keras")
    index.save(arguments.out / "index")
    # Of drawn items it is known of what kind they are; of others, how popular.
    labels = kind if kind is not None else np.digitize(popular, np.quantile(popular, (0.5, 0.9)))
    panels = {"untrained": before[1], "trained": after[1]}
    viz.plot_embeddings(panels, labels, method="tsne", max_points=1000).savefig(
        arguments.out / "items.png", dpi=120
    )
    print(f"\n{arguments.out}: users.keras, items.keras, index, items.png")
    print(f"{time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
