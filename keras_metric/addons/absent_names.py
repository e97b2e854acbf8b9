"""Errors for missing names of tensorflow-addons 0.23, with the replacement in Keras 3."""

import sys

_FOCAL = (
    "keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True), a mean where it was a sum"
)
# Replacements in Keras 3 by module and name; None for no replacement.
_REPLACEMENTS = {
    "keras_metric.addons": {
        "activations": "gelu, hard_shrink, mish, soft_shrink, sparsemax and tanh_shrink in "
        "keras.activations",
        "callbacks": "keras.callbacks.SwapEMAWeights for averaged weights",
        "image": "keras.ops.image and the preprocessing layers of keras.layers",
        "layers": "AdaptiveAveragePooling2D, GroupNormalization, MultiHeadAttention and "
        "SpectralNormalization in keras.layers",
        "metrics": "F1Score, FBetaScore, MeanMetricWrapper and R2Score in keras.metrics",
        "optimizers": "AdamW, Lamb and MultiOptimizer in keras.optimizers, and use_ema=True for "
        "averaged weights",
        "options": None,
        "register": "keras.saving.register_keras_serializable",
        "register_all": "keras.saving.register_keras_serializable",
        "rnn": "LSTMCell, GRUCell and RNN in keras.layers",
        "seq2seq": None,
        "text": None,
        "types": None,
        "utils": None,
    },
    "keras_metric.addons.losses": {
        "GIoULoss": None,
        "PinballLoss": None,
        "SigmoidFocalCrossEntropy": _FOCAL,
        "SparsemaxLoss": "keras.ops.sparsemax, but not its loss",
        "WeightedKappaLoss": None,
        "focal_loss": _FOCAL,
        "giou_loss": None,
        "kappa_loss": None,
        "pinball_loss": None,
        "quantiles": None,
        "sigmoid_focal_crossentropy": _FOCAL,
        "sparsemax_loss": "keras.ops.sparsemax, but not its loss",
    },
}


def attribute_error(module, name):
    """Return the AttributeError for a name that `module` does not have."""
    return AttributeError(_line(module, name) or f"module {module!r} has no attribute {name!r}")


def _line(module, name):
    if name not in _REPLACEMENTS.get(module, {}):
        return None
    found = _REPLACEMENTS[module][name]
    return (
        f"{module} has no {name!r}: keras_metric has only the metric losses of tensorflow-addons. "
        f"Keras 3 has {found or 'no replacement'}."
    )


class _AbsentModules:
    """Import finder that raises the same message for `from keras_metric.addons import layers`.

    Python replaces the AttributeError of a module by an ImportError there, after a search for a
    submodule of that name. This finder is the last one of the search.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        line = _line(*name.rpartition(".")[::2])
        if line:
            raise ImportError(line, name=name)


sys.meta_path.append(_AbsentModules)
