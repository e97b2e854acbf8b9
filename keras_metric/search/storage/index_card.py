"""The index card: a summary of an index in Markdown, for a person who opens the folder."""

from keras_metric._text import as_markdown, visible


def index_card(index, saved):
    """The card as Markdown; `saved` is the time of the save."""
    settings = ", ".join(f"{name}={value}" for name, value in index.settings.items())
    lines = [
        "# Index card",
        "",
        *map(visible, (index.description or "No description was given.").splitlines()),
        "",
        "| data | |",
        "| --- | --- |",
        *(f"| {name} | {as_markdown(value)} |" for name, value in index._store.summary().items()),
        f"| saved | {saved} |",
        "",
        "| encoder and index | |",
        "| --- | --- |",
        f"| encoder's fingerprint | {as_markdown(index.fingerprint or 'not recorded')} |",
        f"| dim | {index.dim} |",
        f"| metric | {index.metric} |",
        f"| store | {index.store} |",
        f"| kind | {index.kind} {settings} |",
        "",
        "| rule | threshold | false accept rate | target | impostors | false reject rate "
        "| genuine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for point in index.operating_points.values():
        lines.append(
            f"| {as_markdown(point.rule)} | {point.threshold:.6g} | "
            f"{point.false_accept_rate:.3g} | {point.target:.3g} | {point.num_impostors:,} | "
            f"{point.false_reject_rate:.3g} | {point.num_genuine:,} |"
        )
    if not index.operating_points:
        lines.append("| not calibrated | | | | | | |")
    return "\n".join(lines) + "\n"
