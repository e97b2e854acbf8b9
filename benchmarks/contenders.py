"""The losses that the benchmarks compare, by the name of our class, and the peer's of each."""

# Losses of two views of an item, which read no labels.
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
# Those that want embeddings as the network gives them, not scaled to length 1.
RAW = (
    "AdaFaceLoss",
    "BarlowTwinsLoss",
    "LargeMarginSoftmaxLoss",
    "SimSiamLoss",
    "SphereFaceLoss",
    "VICRegLoss",
)
# Losses with vectors of the classes, whose number they are told.
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
# Arguments without a default that would serve, or where a benchmark wants others.
SETTINGS = {
    # A scale of 64 is for thousands of steps; the peer gets the same.
    **{
        name: {"scale": 16}
        for name in ("AdaFaceLoss", "ArcFaceLoss", "CosFaceLoss", "SubCenterArcFaceLoss")
    },
    # The paper's .0051 is for 8,192 dimensions, that is for 16,000 times as many products.
    "BarlowTwinsLoss": {"redundancy_weight": 0.05},
    # Without labels it deals proxies out at random, for which 300 steps are few.
    "ManifoldLoss": {"meta_classes": "labels"},
    # The angle times four is hard to begin with: the papers blend it with the plain cosine, by
    # 1,000 at first. With less, lengths fall to nothing where they are free to.
    "LargeMarginSoftmaxLoss": {"blend": 100},
    "SphereFaceLoss": {"blend": 100},
}
# How much faster than the network the vectors of classes learn: at 0.01, as in the paper of
# Proxy-Anchor; but where their length counts, and where they are seen through random walks alone.
# SimSiam's predictor has to keep up with the network.
FASTER = {
    **dict.fromkeys(OF_CLASSES, 10),
    "LargeMarginSoftmaxLoss": 1,
    "ManifoldLoss": 100,
    "SimSiamLoss": 10,
}
# Outputs of the network, where those of all others would not do: with more classes than these the
# cosines with the others outweigh the own one, and class vectors leave the space of the embeddings.
DIMS = {"P2SGradLoss": 1024}
# Losses that are made to stand beside another one, with what they are added to and their weight.
BESIDE = {
    "CenterLoss": ("NormalizedSoftmaxLoss", 0.01),
    "IntraPairVarianceLoss": ("ContrastiveLoss", 1.0),
    "ThresholdConsistentMarginLoss": ("ContrastiveLoss", 1.0),
}
# Not a loss by itself, or of another kind of data.
LEFT_OUT = ("WeightedSum",)
# Class of pytorch-metric-learning, its arguments, and whether vectors come as they are.
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
    """Every loss that a benchmark of all losses takes."""
    from keras_metric import losses

    public = [name for name in losses.__all__ if name.endswith("Loss") and name != "MetricLoss"]
    return sorted([n for n in public if n not in LEFT_OUT] + [n for n in OF_VIEWS if "(" in n])


def labelled(name):
    """Whether the loss reads class ids."""
    return name not in (*OF_VIEWS, *OF_PAIRS)


def ours(name, num_classes=None, beside=False):
    """Our loss; `num_classes` for those with vectors of classes, `beside` to add its partner."""
    from keras_metric import losses

    settings = dict(SETTINGS.get(name, {}))
    if name in OF_CLASSES:
        settings["num_classes"] = num_classes
    if name == "ManifoldLoss" and num_classes:
        settings["num_proxies"] = num_classes
    loss = getattr(losses, name.split(" ")[0])(**settings)
    if not beside or name not in BESIDE:
        return loss
    partner, weight = BESIDE[name]
    return losses.WeightedSum([(1, ours(partner, num_classes)), (weight, loss)])


def peer(name, num_classes=None, dim=None, beside=False):
    """The loss of pytorch-metric-learning; of two branches if ours is."""
    from pytorch_metric_learning import distances, losses

    kind, arguments, plain = PEERS[name]
    if name == "P2SGradLoss":
        arguments = {"descriptors_dim": dim, "num_classes": num_classes}
    elif name in OF_CLASSES:
        arguments = {**arguments, "num_classes": num_classes, "embedding_size": dim}
    if plain:
        arguments = {**arguments, "distance": distances.LpDistance(normalize_embeddings=False)}
    loss = getattr(losses, kind)(**arguments)
    if beside and name in BESIDE:
        partner, weight = BESIDE[name]
        both = [peer(partner, num_classes, dim), loss]
        return losses.MultipleLosses(both, weights=[1, weight])
    if labelled(name):
        return loss
    if kind == "VICRegLoss":
        return lambda first, second: loss(first, ref_emb=second)
    return losses.SelfSupervisedLoss(loss)
