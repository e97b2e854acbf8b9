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
# Those that want embeddings as the network gives them, not scaled to length 1.
RAW = ("BarlowTwinsLoss", "SimSiamLoss", "VICRegLoss")
# Arguments without a default that would serve, or where a benchmark wants others.
SETTINGS = {}
# Not a loss by itself, or of another kind of data.
LEFT_OUT = ("WeightedSum",)
# Class of pytorch-metric-learning, its arguments, and whether vectors come as they are.
PEERS = {
    "AngularLoss": ("AngularLoss", {}, False),
    "CircleLoss": ("CircleLoss", {}, False),
    "ContrastiveLoss": ("ContrastiveLoss", {}, True),
    "FastAPLoss": ("FastAPLoss", {}, False),
    "GeneralizedLiftedStructureLoss": ("GeneralizedLiftedStructureLoss", {}, True),
    "HistogramLoss": ("HistogramLoss", {}, False),
    "InstanceLoss": ("InstanceLoss", {}, False),
    "IntraPairVarianceLoss": ("IntraPairVarianceLoss", {}, False),
    "LiftedStructureLoss": ("LiftedStructureLoss", {}, True),
    "MarginLoss": ("MarginLoss", {}, True),
    "MultiSimilarityLoss": ("MultiSimilarityLoss", {}, False),
    "NCALoss": ("NCALoss", {}, False),
    "NPairsLoss": ("NPairsLoss", {}, False),
    "NTXentLoss": ("NTXentLoss", {}, False),
    "NTXentLoss (views)": ("NTXentLoss", {}, False),
    "PNPLoss": ("PNPLoss", {}, False),
    "RankedListLoss": ("RankedListLoss", {"margin": 0.4, "Tn": 10}, True),
    "SignalToNoiseRatioLoss": ("SignalToNoiseRatioContrastiveLoss", {}, False),
    "SmoothAPLoss": ("SmoothAPLoss", {}, False),
    "SupConLoss": ("SupConLoss", {}, False),
    "ThresholdConsistentMarginLoss": ("ThresholdConsistentMarginLoss", {}, False),
    "TripletLoss": ("TripletMarginLoss", {"margin": 0.2}, True),
    "TupletMarginLoss": ("TupletMarginLoss", {}, False),
    "VICRegLoss": ("VICRegLoss", {}, False),
}


def names():
    """Every loss that a benchmark of all losses takes."""
    from keras_metric import losses

    public = [name for name in losses.__all__ if name.endswith("Loss")]
    return sorted([n for n in public if n not in LEFT_OUT] + [n for n in OF_VIEWS if "(" in n])


def labelled(name):
    """Whether the loss reads class ids."""
    return name not in OF_VIEWS


def ours(name):
    from keras_metric import losses

    return getattr(losses, name.split(" ")[0])(**SETTINGS.get(name, {}))


def peer(name):
    """The loss of pytorch-metric-learning; of two branches if ours is."""
    from pytorch_metric_learning import distances, losses

    kind, arguments, plain = PEERS[name]
    if plain:
        arguments = {**arguments, "distance": distances.LpDistance(normalize_embeddings=False)}
    loss = getattr(losses, kind)(**arguments)
    if labelled(name):
        return loss
    if kind == "VICRegLoss":
        return lambda first, second: loss(first, ref_emb=second)
    return losses.SelfSupervisedLoss(loss)
