"""Train text encoders: intents of questions by nearest neighbor, and graded sentence pairs.

    python examples/text.py                            # synthetic data
    python examples/text.py --data banking77           # folder of train.jsonl, test.jsonl
    python examples/text.py --data trec --label fine   # another name of the label
    python examples/text.py --pairs stsb               # train.jsonl, dev.jsonl: a, b, score

A line of train.jsonl is {"text": "Where is my card?", "label": "card_arrival"}. No pretrained model
is used. A text is represented by the set of its words, word pairs and n-grams of 3 to 5 letters,
hashed to token ids, so that the encoder needs no vocabulary. The first layer has a fixed vector for
each token (from the SVD of the training texts, times the inverse document frequency); the layers
after it are trained. A test question gets the label of the nearest training question. The results
are compared with edit distance, common words, TF-IDF, and discriminant analysis of the same
representation.
"""

import argparse
import json
import os
import time
from pathlib import Path

from keras_metric_startup import hide_tensorflow_startup_messages

hide_tensorflow_startup_messages()

import keras
import numpy as np
import scipy.sparse
from keras import layers
from scipy.stats import spearmanr
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.preprocessing import normalize

import keras_metric
from keras_metric import losses, viz

BUCKETS = 2**15


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of train.jsonl and test.jsonl")
    parser.add_argument("--label", default="label", help="key of the label in a line")
    parser.add_argument("--pairs", type=Path, help="folder of train.jsonl and dev.jsonl")
    parser.add_argument("--components", type=int, default=512, help="of the SVD")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few batches, to test the script")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.components, arguments.steps = 64, 60
    folder = os.environ.get("KERAS_METRIC_DATA")
    if folder and not (arguments.data or arguments.pairs):
        folders = Path(folder, "banking77"), Path(folder, "stsb")
        arguments.data, arguments.pairs = (path if path.is_dir() else None for path in folders)
    return arguments


# --- texts ---------------------------------------------------------------------------------

ACTIONS = {
    "lose": ("lost", "misplaced", "cannot find", "am missing"),
    "order": ("want to order", "would like to request", "need to get", "am asking for"),
    "close": ("want to close", "need to cancel", "would like to end", "wish to stop"),
    "change": ("want to change", "need to update", "have to correct", "would like to edit"),
    "wait": ("still wait for", "have not received", "am expecting", "never got"),
}
THINGS = {
    "card": ("card", "visa", "debit card", "plastic"),
    "account": ("account", "profile", "login", "user name"),
    "transfer": ("transfer", "payment", "wire", "remittance"),
    "code": ("PIN", "passcode", "secret number", "password"),
}
OPENINGS = ("", "hello, ", "please help, ", "sorry but ", "it seems that ", "hi there, ")
ENDINGS = ("", ", what now?", ", how does that work?", " since last week", ", can you help me?")


def make_question(action, thing, rng):
    """Return one of many phrasings, in half of the cases with two letters swapped."""
    parts = (rng.choice(OPENINGS), "I ", rng.choice(ACTIONS[action]), " my ")
    letters = list("".join(parts) + rng.choice(THINGS[thing]) + rng.choice(ENDINGS))
    if rng.random() < 0.5:
        i = rng.integers(len(letters) - 1)
        letters[i : i + 2] = letters[i + 1], letters[i]
    return "".join(letters)


def make_questions(each, rng):
    intents = [(action, thing) for action in ACTIONS for thing in THINGS] * each
    texts = [make_question(*intent, rng) for intent in intents]
    return texts, np.array([" ".join(intent) for intent in intents])


def make_pairs(count, rng):
    """Return pairs of questions, with 3 points for the same action and 2 for the same thing."""
    pairs, scores = [], []
    for _ in range(count):
        one, other = ([rng.choice(list(ACTIONS)), rng.choice(list(THINGS))] for _ in range(2))
        other = [a if rng.random() < 0.4 else b for a, b in zip(one, other)]
        pairs.append((make_question(*one, rng), make_question(*other, rng)))
        scores.append(3.0 * (one[0] == other[0]) + 2.0 * (one[1] == other[1]))
    return pairs, np.array(scores)


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load_questions(folder, label, seed):
    if folder is None:
        print("no --data: using synthetic questions")
        rng = np.random.default_rng(seed)
        return *make_questions(12, rng), *make_questions(10, rng)
    parts = [read_lines(folder / f"{part}.jsonl") for part in ("train", "test")]
    return tuple(
        value
        for lines in parts
        for value in ([line["text"] for line in lines], np.array([line[label] for line in lines]))
    )


def load_pairs(folder, seed):
    if folder is None:
        rng = np.random.default_rng(seed)
        return *make_pairs(1500, rng), *make_pairs(400, rng)
    parts = [read_lines(folder / f"{part}.jsonl") for part in ("train", "dev")]
    return tuple(
        value
        for lines in parts
        for value in (
            [(line["a"], line["b"]) for line in lines],
            np.array([line["score"] for line in lines], "float32"),
        )
    )


# --- tokens --------------------------------------------------------------------------------

WORDS = HashingVectorizer(
    ngram_range=(1, 2), token_pattern=r"\w+", n_features=BUCKETS, binary=True, norm=None
)
LETTERS = HashingVectorizer(
    analyzer="char_wb", ngram_range=(3, 5), n_features=BUCKETS, binary=True, norm=None
)


def bags(texts):
    """Return a sparse matrix (texts, BUCKETS) with 1 for each token of a text."""
    both = abs(WORDS.transform(texts)) + abs(LETTERS.transform(texts))
    return (both > 0).astype("float32").tocsr()


def token_ids(bag):
    """Return the inputs of the encoder (texts, tokens): token ids from 1, padded with zeros."""
    bag = bag.tocsr()
    ids = np.zeros((bag.shape[0], int(np.diff(bag.indptr).max())), "int32")
    position = np.arange(bag.nnz) - np.repeat(bag.indptr[:-1], np.diff(bag.indptr))
    ids[np.repeat(np.arange(bag.shape[0]), np.diff(bag.indptr)), position] = bag.indices + 1
    return ids


def inverse_document_frequency(bag):
    """Return the smoothed inverse document frequency of each token."""
    return 1 + np.log((1 + bag.shape[0]) / (1 + np.asarray(bag.sum(0)).ravel()))


def build_bag_layers(bag, components, seed, directions="svd"):
    """Return a model from token ids to a unit vector: the normalized mean of the token vectors.

    With "svd", tokens that occur in the same texts have similar vectors. With "random", the cosines
    of texts are approximately those of their weighted bags.
    """
    weights = inverse_document_frequency(bag)
    if directions == "svd":
        components = min(components, min(bag.shape) - 1)
        weighted = normalize(bag @ scipy.sparse.diags(weights))
        svd = TruncatedSVD(components, n_iter=2, random_state=seed).fit(weighted)
        directions = svd.components_.T
    else:
        directions = np.random.default_rng(seed).normal(size=(BUCKETS, components))
    table = np.zeros((BUCKETS + 1, components), "float32")
    table[1:] = weights[:, None] * directions
    embedding = layers.Embedding(*table.shape, mask_zero=True, trainable=False)
    embedding.build((None, None))
    embedding.set_weights([table])
    return keras.Sequential(
        [
            layers.Input((None,), dtype="int32"),
            embedding,
            layers.GlobalAveragePooling1D(),
            layers.UnitNormalization(),
        ],
        name="bag",
    )


# --- baselines -----------------------------------------------------------------------------


def words_of(texts, others=()):
    counter = CountVectorizer(token_pattern=r"\w+", binary=True, dtype="float32")
    words = counter.fit_transform([*texts, *others])
    return words[: len(texts)], words[len(texts) :]


def jaccard_similarities(texts, others):
    """Return the number of common words / all words for each text and each other text."""
    a, b = words_of(texts, others)
    common = (a @ b.T).toarray()
    union = np.asarray(a.sum(1)).reshape(-1, 1) + np.asarray(b.sum(1)).ravel() - common
    return common / np.maximum(union, 1)


def edit_similarities(texts, others):
    """Return 1 - edit distance / length of the longer text."""
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    return process.cdist(
        [t.lower() for t in texts],
        [t.lower() for t in others],
        scorer=Levenshtein.normalized_similarity,
        dtype=np.float32,
        workers=-1,
    )


def accuracy(similarities, y_test, y):
    """Return the fraction of rows whose most similar column has the same label."""
    return float((y[similarities.argmax(1)] == y_test).mean())


def class_means(z, y):
    classes = np.unique(y)
    return normalize(np.stack([z[y == label].mean(0) for label in classes])), classes


def accuracies(test, y_test, train, y):
    """Return the accuracy by the nearest text, and by the nearest class mean."""
    means, classes = class_means(train, y)
    return accuracy(test @ train.T, y_test, y), accuracy(test @ means.T, y_test, classes)


# --- training ------------------------------------------------------------------------------


def build_head(width, seed, hidden=1024):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            layers.Input((width,)),
            # Strong dropout, because half a million weights are trained on some thousand texts.
            layers.Dropout(0.5),
            layers.Dense(hidden, "gelu"),
            layers.Dropout(0.5),
        ],
        name="head_of_texts",
    )


def train_intents(x, y, steps, seed):
    """Return an untrained and a trained encoder of bag vectors."""
    model = keras_metric.EmbeddingModel(build_head(x.shape[1], seed), 256)
    before = keras_metric.EmbeddingModel(build_head(x.shape[1], seed), 256).encoder
    classes, ids = np.unique(y, return_inverse=True)
    learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    # This loss has a vector for each class, so that batches need no pairs of a class.
    model.compile(keras.optimizers.AdamW(learning_rate), losses.NormalizedSoftmaxLoss(len(classes)))
    epochs = max(1, round(steps / -(-len(x) // 256)))
    model.fit(x, ids.astype("int32"), batch_size=256, epochs=epochs, verbose=0)
    return before, model.encoder


def whole_encoder(bag_layers, encoder):
    """Return one model from token ids to embeddings."""
    return keras.Sequential([layers.Input((None,), dtype="int32"), bag_layers, encoder])


def print_table(title, columns, rows):
    print(f"\n{title}\n{'':26}" + "".join(f"{column:>12}" for column in columns))
    for name, values in rows.items():
        cells = ("" if value is None else f"{value:.3f}" for value in values)
        print(f"{name:26}" + "".join(f"{cell:>12}" for cell in cells))


def train_on_questions(arguments):
    texts, y, test_texts, y_test = load_questions(arguments.data, arguments.label, arguments.seed)
    if arguments.short:
        few = np.random.default_rng(0).permutation(len(texts))[:1000]
        texts, y = [texts[i] for i in few], y[few]
        few = np.random.default_rng(0).permutation(len(test_texts))[:300]
        test_texts, y_test = [test_texts[i] for i in few], y_test[few]
    print(f"{len(texts):,} training questions, {len(test_texts):,} test questions")
    print(f"{len(np.unique(y))} labels, no pretrained model", flush=True)

    def row(similarities):
        return accuracy(similarities, y_test, y), None

    rows = {}
    try:
        rows["edit distance"] = row(edit_similarities(test_texts, texts))
    except ImportError:
        print('edit distances are omitted: pip install "keras_metric[examples]"')
    rows["Jaccard, words"] = row(jaccard_similarities(test_texts, texts))
    tfidf = TfidfVectorizer().fit(texts)
    rows["TF-IDF, words"] = row((tfidf.transform(test_texts) @ tfidf.transform(texts).T).toarray())
    bag, test_bag = bags(texts), bags(test_texts)
    weights = scipy.sparse.diags(inverse_document_frequency(bag))
    weighted, test_weighted = (normalize(part @ weights) for part in (bag, test_bag))
    rows["weighted tokens"] = row((test_weighted @ weighted.T).toarray())

    bag_layers = build_bag_layers(bag, arguments.components, arguments.seed)
    ids, test_ids = token_ids(bag), token_ids(test_bag)
    # The bag layers are not trained, so compute their output only once.
    x, x_test = (bag_layers.predict(part, batch_size=256, verbose=0) for part in (ids, test_ids))
    rows["SVD"] = accuracies(x_test, y_test, x, y)
    discriminant = LinearDiscriminantAnalysis().fit(x, y)
    projected = [normalize(discriminant.transform(part)) for part in (x_test, x)]
    rows["SVD + LDA"] = accuracies(projected[0], y_test, projected[1], y)

    start = time.perf_counter()
    before, after = train_intents(x, y, arguments.steps, arguments.seed)
    seconds = time.perf_counter() - start
    z = {}
    for name, encoder in (("untrained", before), ("trained", after)):
        z[name], train = (encoder.predict(p, batch_size=1024, verbose=0) for p in (x_test, x))
        rows[name] = accuracies(z[name], y_test, train, y)
    print_table("test accuracy by", ("nearest", "class mean"), rows)
    print(f"trained in {seconds:.0f} seconds")

    print("\nnearest training questions of the trained encoder")
    for i in np.random.default_rng(arguments.seed).permutation(len(test_texts))[:4]:
        j = int((train @ z["trained"][i]).argmax())
        print(f"  {test_texts[i][:80]}\n    {texts[j][:80]}  [{y[j]}]")

    encoder = whole_encoder(bag_layers, after)
    same = encoder.predict(test_ids[:50], verbose=0)
    difference = abs(same - z["trained"][:50]).max()
    print(f"\nwhole encoder: embeddings differ by {difference:.0e}")
    encoder.save(arguments.out / "questions.keras")
    panels = {"untrained": z["untrained"], "trained": z["trained"]}
    # The plot has different colors for at most ten labels.
    shown = np.isin(y_test, np.unique(y_test)[:10])
    viz.plot_embeddings(
        {name: part[shown] for name, part in panels.items()},
        y_test[shown],
        method="tsne",
        max_points=600,
    ).savefig(arguments.out / "questions.png", dpi=120)
    viz.plot_distances(z["trained"], y_test).savefig(arguments.out / "distances.png", dpi=120)


# --- graded pairs --------------------------------------------------------------------------


def train_pairs(x, scores, steps, seed):
    """Train one linear layer with identity initialization.

    The number of steps is about three epochs; ten epochs overfit.
    """
    keras.utils.set_random_seed(seed)
    head = keras.Sequential(
        [
            layers.Input(x.shape[1:]),
            layers.Dropout(0.2),
            layers.Dense(x.shape[1], kernel_initializer="identity", use_bias=False),
        ]
    )
    model = keras_metric.EmbeddingModel(head, None)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    loss = losses.CosineRegressionLoss(y_max=float(scores.max()))
    model.compile(keras.optimizers.Adam(schedule), loss)
    epochs = max(1, round(steps / -(-len(scores) // 128)))
    pairs = {"first": x[0::2], "second": x[1::2]}
    model.fit(pairs, scores, batch_size=128, epochs=epochs, verbose=0)
    return model.encoder


def cosines(z):
    """Return the cosine of each pair; rows 2i and 2i + 1 are a pair."""
    return np.asarray((z[0::2] * z[1::2]).sum(1))


def train_on_pairs(arguments):
    pairs, scores, test_pairs, test_scores = load_pairs(arguments.pairs, arguments.seed)
    if arguments.short:
        pairs, scores, test_pairs, test_scores = (
            part[:300] for part in (pairs, scores, test_pairs, test_scores)
        )
    texts, test_texts = ([text for pair in p for text in pair] for p in (pairs, test_pairs))
    bag = bags(texts)
    weights = scipy.sparse.diags(inverse_document_frequency(bag))
    weighted = normalize(bags(test_texts) @ weights)
    tfidf = TfidfVectorizer().fit(texts).transform(test_texts)
    words, _ = words_of(test_texts)
    common = cosines_of_sparse(words)
    sizes = np.asarray(words.sum(1)).ravel()
    predictions = {
        "Jaccard, words": common / np.maximum(sizes[0::2] + sizes[1::2] - common, 1),
        "TF-IDF, words": cosines_of_sparse(tfidf),
        "weighted tokens": cosines_of_sparse(weighted),
    }
    try:
        from rapidfuzz.distance import Levenshtein

        similarity = Levenshtein.normalized_similarity
        predictions = {
            "edit distance": [similarity(a.lower(), b.lower()) for a, b in test_pairs],
            **predictions,
        }
    except ImportError:
        pass
    bag_layers = build_bag_layers(bag, arguments.components, arguments.seed, "random")
    x, x_test = (
        bag_layers.predict(token_ids(bags(part)), batch_size=256, verbose=0)
        for part in (texts, test_texts)
    )
    predictions["untrained"] = cosines(x_test)
    encoder = train_pairs(x, scores, arguments.steps // 5, arguments.seed)
    predictions["trained"] = cosines(encoder.predict(x_test, batch_size=1024, verbose=0))
    print(f"\n{len(pairs):,} graded training pairs, {len(test_pairs):,} test pairs")
    rows = {name: (spearmanr(p, test_scores).statistic,) for name, p in predictions.items()}
    print_table("rank correlation with the grades", ("Spearman",), rows)
    whole_encoder(bag_layers, encoder).save(arguments.out / "pairs.keras")


def cosines_of_sparse(bag):
    return np.asarray(bag[0::2].multiply(bag[1::2]).sum(1)).ravel()


def main():
    arguments = parse_arguments()
    start = time.perf_counter()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train_on_questions(arguments)
    train_on_pairs(arguments)
    print(f"\n{arguments.out}: questions.keras, pairs.keras, questions.png, distances.png")
    print(f"{time.perf_counter() - start:.0f} seconds in total")


if __name__ == "__main__":
    main()
