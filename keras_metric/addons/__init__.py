"""The metric losses of tensorflow-addons, with its names, arguments and values.

For training scripts written for tensorflow-addons, which does not work with Keras 3. Replace the
import line by one of these; the rest of the script does not change:

    import keras_metric.addons as tfa                              # tfa.losses.TripletSemiHardLoss
    from keras_metric.addons import losses  # losses.TripletSemiHardLoss
    from keras_metric.addons.losses import TripletSemiHardLoss
    from keras_metric.addons.losses.metric_learning import pairwise_distance

New code should use `keras_metric.losses`, which has the same formulas with all miners and metrics,
weights of anchors, and means over non-zero terms. `docs/migrate-tensorflow-addons.md` lists the
corresponding names.
"""

from keras_metric.addons import losses
from keras_metric.addons.absent_names import attribute_error as _attribute_error
from keras_metric.addons.losses import *  # noqa: F403

__all__ = list(losses.__all__)


def __getattr__(name):
    raise _attribute_error(__name__, name)
