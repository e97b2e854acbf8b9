"""Refuses losses that cannot train a model, before the first step."""

import inspect

import keras

from keras_metric import losses
from keras_metric.losses.metric_loss import MetricLoss
from keras_metric.losses.weighted_sum import terms_of

# Functions of `keras.losses` that compare y_pred with a target of the same shape.
OF_TARGETS = (
    "cosine_similarity",
    "huber",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
)
# Stands for a labelled batch among the numbers of branches.
BATCH = 1


def check_loss(loss, model):
    """Raise unless `loss` can train `model`: a form that both take, and embeddings as y_pred.

    Losses and functions of a user's own may be written for embeddings, so they pass.
    """
    possible = model.numbers_of_branches
    for term in terms_of(loss):
        if inspect.isclass(term) and issubclass(term, MetricLoss):
            raise ValueError(
                f"`loss` must be an object. Received the class {term.__name__}: write "
                f"loss={term.__name__}(...), with parentheses."
            )
        term = _resolved(term, model)
        allowed = {number for number in possible if _reads(term, number, model)}
        if not allowed:
            raise ValueError(_message(model, _name(term), _needs(term)))
        possible = allowed


def check_target(loss, y, y_pred, model):
    """Raise if a loss of Keras that compares shapes gets class ids: it would broadcast them."""
    # TensorFlow knows no rank of y after batches of several ranks.
    shape = getattr(y, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None:
        return
    if tuple(shape[1:]) == tuple(y_pred.shape[1:]):
        return
    for term in terms_of(loss):
        term = _resolved(term, model)
        if keras_function(term) in OF_TARGETS:
            raise ValueError(
                _message(model, _name(term), _needs(term))
                + f" Received: y.shape={tuple(shape)}, y_pred.shape={tuple(y_pred.shape)}."
            )


def keras_function(loss):
    """Name of the function of `keras.losses` behind a function or loss object, or None."""
    function = getattr(loss, "fn", loss) if _is_of_keras(type(loss)) else loss
    return getattr(function, "__name__", None) if _is_of_keras(function) else None


def _is_of_keras(thing):
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "keras"


def _resolved(term, model):
    if not isinstance(term, str):
        return term
    try:
        return keras.losses.get(term)
    except ValueError as error:
        raise ValueError(_message(model, repr(term), "a name that Keras knows")) from error


def _reads(term, number, model):
    """Whether a loss can read y_pred of `number` branches, 1 for a labelled batch."""
    if hasattr(term, "reads_branches"):
        return term.reads_branches(number)
    function = keras_function(term)
    if function is None:
        return True
    if number != BATCH or function == "circle":
        return number == BATCH
    if not model.takes_targets:
        return False
    return function in OF_TARGETS or getattr(term, "from_logits", False) or not model.normalized


def _name(term):
    return getattr(term, "__name__", type(term).__name__)


def _needs(term):
    """Requirement of a refused loss, for the message."""
    if isinstance(term, MetricLoss):
        numbers = [number for number in range(2, 5) if term.reads_branches(number)]
        forms = ["labelled batches"] if term.reads_branches(BATCH) else []
        forms += [f"tuples of {' or '.join(map(str, numbers))} branches"] if numbers else []
        return " or ".join(forms) or "distances or similarities as y_pred"
    if hasattr(term, "reads_branches"):
        return "distances as y_pred"
    function = keras_function(term)
    if function == "circle":
        return "labelled batches"
    if function in OF_TARGETS:
        return "a target of the shape of y_pred, such as the embeddings of another model"
    return "predictions of classes as y_pred"


def _message(model, name, needs):
    able = []
    for number in sorted(model.numbers_of_branches - {BATCH}):
        made_for = [
            loss
            for loss in losses.__all__
            if number in (getattr(getattr(losses, loss), "num_branches", None) or ())
        ]
        able.append(f"for tuples of {number} branches {', '.join(made_for)}")
    if BATCH in model.numbers_of_branches:
        able.append(
            "for labelled batches every loss on class ids, such as TripletLoss, "
            "MultiSimilarityLoss, SupConLoss and ArcFaceLoss(num_classes)"
        )
    return (
        f"{type(model).__name__} cannot train with the loss {name}, which needs {needs}. The model "
        f"outputs embeddings. Losses of keras_metric.losses that fit: {'; '.join(able)}. A loss of "
        "your own is a function of (y_true, y_pred) or a subclass of keras.losses.Loss."
    )
