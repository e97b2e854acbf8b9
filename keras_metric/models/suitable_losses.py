"""Checks whether a loss can train a model, before the first step."""

import inspect
import re

import keras

from keras_metric import losses
from keras_metric.losses import MetricLoss

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
# Number of branches of a labelled batch.
BATCH = 1


def losses_in(loss):
    """List of the single losses in `loss`: a loss, a sum of losses, or a structure of them."""
    return [
        one
        for part in keras.tree.flatten(loss)
        for one in (part.all_losses() if isinstance(part, MetricLoss) else [part])
    ]


def check_loss(loss, model):
    """Raise unless `loss` can train `model`: a form that both accept, and embeddings as y_pred.

    A user's own losses and functions are accepted, since they may be written for embeddings.
    """
    possible = model.numbers_of_branches
    for term in losses_in(loss):
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
    """Raise if a loss of Keras that compares shapes gets class ids, which it would broadcast."""
    # In TensorFlow the rank of y is None after batches of several ranks.
    shape = getattr(y, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None:
        return
    if tuple(shape[1:]) == tuple(y_pred.shape[1:]):
        return
    for term in losses_in(loss):
        term = _resolved(term, model)
        if keras_function(term) in OF_TARGETS:
            raise ValueError(
                _message(model, _name(term), _needs(term))
                + f" Received: y.shape={tuple(shape)}, y_pred.shape={tuple(y_pred.shape)}."
            )


def keras_function(loss):
    """Name of the function of `keras.losses` of a function or loss object, or None."""
    is_object = isinstance(loss, keras.losses.Loss)
    named = type(loss) if is_object else loss
    if not inspect.isfunction(named) and not inspect.isclass(named):
        return None
    if named.__module__.split(".")[0] != "keras":
        return None
    name = named.__name__
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower() if is_object else name


def _resolved(term, model):
    if not isinstance(term, str):
        return term
    try:
        return keras.losses.get(term)
    except ValueError as error:
        raise ValueError(_message(model, repr(term), "a name of a loss of Keras")) from error


def _reads(term, number, model):
    """Whether a loss can read y_pred of `number` branches, 1 for a labelled batch."""
    if isinstance(term, MetricLoss):
        return term.reads_branches(number)
    function = keras_function(term)
    if function is None:
        return True
    if number != BATCH or function == "circle":
        return number == BATCH
    if not model.takes_targets:
        return False
    is_object = isinstance(term, keras.losses.Loss)
    from_logits = is_object and term.get_config().get("from_logits", False)
    return function in OF_TARGETS or from_logits or not model.normalized


def _name(term):
    named = inspect.isfunction(term) or inspect.isclass(term)
    return term.__name__ if named else type(term).__name__


def _needs(term):
    """Requirement of a refused loss, for the message."""
    if isinstance(term, MetricLoss):
        numbers = [number for number in range(2, 5) if term.reads_branches(number)]
        forms = ["labelled batches"] if term.reads_branches(BATCH) else []
        forms += [f"tuples of {' or '.join(map(str, numbers))} branches"] if numbers else []
        return " or ".join(forms) or "distances or similarities as y_pred"
    function = keras_function(term)
    if function == "circle":
        return "labelled batches"
    if function in OF_TARGETS:
        return "a target of the shape of y_pred, such as the embeddings of another model"
    return "predictions of classes as y_pred"


def _message(model, name, needs):
    classes = {name: thing for name, thing in vars(losses).items() if inspect.isclass(thing)}
    able = []
    for number in sorted(model.numbers_of_branches - {BATCH}):
        made_for = [
            public
            for public in losses.__all__
            if issubclass(classes[public], MetricLoss)
            and number in (classes[public].num_branches or ())
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
