"""Losses of the benchmarks by name, and the corresponding losses of pytorch-metric-learning."""

# Losses of two views of an item, without labels.
OF_VIEWS = (
    "BarlowTwinsLoss",
    "ClipLoss",
    "NTXentLoss (views)",
    "SigLipLoss",
    "SimSiamLoss",
    "VICRegLoss",
)
# Losses of ready-made pairs with a similarity for each.
OF_PAIRS = ("CosineRegressionLoss",)
# Losses for unnormalized embeddings.
RAW = (
    "AdaFaceLoss",
    "BarlowTwinsLoss",
    "LargeMarginSoftmaxLoss",
    "SimSiamLoss",
    "SphereFaceLoss",
    "VICRegLoss",
)
# Losses with class vectors, which need `num_classes`.
OF_CLASSES = (
    "AdaFaceLoss",
    "ArcFaceLoss",
    "CenterLoss",
    "CosFaceLoss",
    "LargeMarginSoftmaxLoss",
    "NormalizedSoftmaxLoss",
    "P2SGradLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SoftTripleLoss",
    "SphereFaceLoss",
    "SubCenterArcFaceLoss",
)
# Arguments that differ from the defaults.
SETTINGS = {
    # The default 64 needs thousands of steps; pytorch-metric-learning gets the same value.
    **{
        name: {"scale": 16}
        for name in ("AdaFaceLoss", "ArcFaceLoss", "CosFaceLoss", "SubCenterArcFaceLoss")
    },
    # The paper's 0.0051 is for 8,192 dimensions, that is for 16,000 times as many products.
    "BarlowTwinsLoss": {"redundancy_weight": 0.05},
    # Without labels it assigns proxies at random, for which 300 steps are too few.
    "ManifoldLoss": {"meta_classes": "labels"},
    # The papers blend the margin with the plain cosine, starting with a weight of 1,000. With less,
    # unnormalized embeddings collapse to length 0.
    "LargeMarginSoftmaxLoss": {"blend": 100},
    "SphereFaceLoss": {"blend": 100},
}
# Learning rate of class vectors relative to that of the network: 0.01 as in the Proxy-Anchor paper,
# except for losses that use the length of class vectors, and for ManifoldLoss. The predictor of
# SimSiam has a higher learning rate too.
RATE_FACTORS = {
    **dict.fromkeys(OF_CLASSES, 10),
    "LargeMarginSoftmaxLoss": 1,
    "ManifoldLoss": 100,
    "SimSiamLoss": 10,
}
# Output dimensions that differ from the default. P2SGradLoss needs more dimensions than classes:
# otherwise the cosines with the other classes dominate.
DIMS = {"P2SGradLoss": 1024}
# Losses that regularize another loss: the other loss and the weight of the regularizer.
REGULARIZERS = {
    "CenterLoss": ("NormalizedSoftmaxLoss", 0.01),
    "IntraPairVarianceLoss": ("ContrastiveLoss", 1.0),
    "ThresholdConsistentMarginLoss": ("ContrastiveLoss", 1.0),
}
EXCLUDED = ("WeightedSum",)
# Class of pytorch-metric-learning, its arguments, and whether embeddings are not normalized.
PEERS = {
    "AngularLoss": ("AngularLoss", {}, False),
    "ArcFaceLoss": ("ArcFaceLoss", {"scale": 16}, False),
    "CircleLoss": ("CircleLoss", {}, False),
    "ContrastiveLoss": ("ContrastiveLoss", {}, True),
    "CosFaceLoss": ("CosFaceLoss", {"scale": 16}, False),
    "DynamicSoftMarginLoss": ("DynamicSoftMarginLoss", {}, False),
    "FastAPLoss": ("FastAPLoss", {}, False),
    "GeneralizedLiftedStructureLoss": ("GeneralizedLiftedStructureLoss", {}, True),
    "HistogramLoss": ("HistogramLoss", {}, False),
    "InstanceLoss": ("InstanceLoss", {}, False),
    "IntraPairVarianceLoss": ("IntraPairVarianceLoss", {}, False),
    "LargeMarginSoftmaxLoss": ("LargeMarginSoftmaxLoss", {}, False),
    "LiftedStructureLoss": ("LiftedStructureLoss", {}, True),
    "MarginLoss": ("MarginLoss", {}, True),
    "MultiSimilarityLoss": ("MultiSimilarityLoss", {}, False),
    "NCALoss": ("NCALoss", {}, False),
    "NPairsLoss": ("NPairsLoss", {}, False),
    "NTXentLoss": ("NTXentLoss", {}, False),
    "NTXentLoss (views)": ("NTXentLoss", {}, False),
    "NormalizedSoftmaxLoss": ("NormalizedSoftmaxLoss", {}, False),
    "P2SGradLoss": ("P2SGradLoss", {}, False),
    "PNPLoss": ("PNPLoss", {}, False),
    "ProxyAnchorLoss": ("ProxyAnchorLoss", {}, False),
    "ProxyNCALoss": ("ProxyNCALoss", {}, False),
    "RankedListLoss": ("RankedListLoss", {"margin": 0.4, "Tn": 10}, True),
    "SignalToNoiseRatioLoss": ("SignalToNoiseRatioContrastiveLoss", {}, False),
    "SmoothAPLoss": ("SmoothAPLoss", {}, False),
    "SoftTripleLoss": ("SoftTripleLoss", {}, False),
    "SphereFaceLoss": ("SphereFaceLoss", {}, False),
    "SubCenterArcFaceLoss": ("SubCenterArcFaceLoss", {"scale": 16}, False),
    "SupConLoss": ("SupConLoss", {}, False),
    "ThresholdConsistentMarginLoss": ("ThresholdConsistentMarginLoss", {}, False),
    "TripletLoss": ("TripletMarginLoss", {"margin": 0.2}, True),
    "TupletMarginLoss": ("TupletMarginLoss", {}, False),
    "VICRegLoss": ("VICRegLoss", {}, False),
}


def names():
    """Return the names of all losses of the benchmarks."""
    from keras_metric import losses

    public = [name for name in losses.__all__ if name.endswith("Loss") and name != "MetricLoss"]
    return sorted([n for n in public if n not in EXCLUDED] + [n for n in OF_VIEWS if "(" in n])


def labelled(name):
    """Return whether the loss takes class ids."""
    return name not in (*OF_VIEWS, *OF_PAIRS)


def ours(name, num_classes=None, regularize=False):
    """Return our loss; with `regularize`, a regularizer together with its main loss."""
    from keras_metric import losses

    settings = dict(SETTINGS.get(name, {}))
    if name in OF_CLASSES:
        settings["num_classes"] = num_classes
    if name == "ManifoldLoss" and num_classes:
        settings["num_proxies"] = num_classes
    loss = getattr(losses, name.split(" ")[0])(**settings)
    if not regularize or name not in REGULARIZERS:
        return loss
    main, weight = REGULARIZERS[name]
    return losses.WeightedSum([(1, ours(main, num_classes)), (weight, loss)])


def peer(name, num_classes=None, dim=None, regularize=False):
    """Return the loss of pytorch-metric-learning, for two views if ours takes two."""
    from pytorch_metric_learning import distances, losses

    kind, arguments, plain = PEERS[name]
    if name == "P2SGradLoss":
        arguments = {"descriptors_dim": dim, "num_classes": num_classes}
    elif name in OF_CLASSES:
        arguments = {**arguments, "num_classes": num_classes, "embedding_size": dim}
    if plain:
        arguments = {**arguments, "distance": distances.LpDistance(normalize_embeddings=False)}
    loss = getattr(losses, kind)(**arguments)
    if regularize and name in REGULARIZERS:
        main, weight = REGULARIZERS[name]
        both = [peer(main, num_classes, dim), loss]
        return losses.MultipleLosses(both, weights=[1, weight])
    if labelled(name):
        return loss
    if kind == "VICRegLoss":
        return lambda first, second: loss(first, ref_emb=second)
    return losses.SelfSupervisedLoss(loss)
