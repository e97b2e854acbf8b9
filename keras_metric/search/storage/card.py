"""The index card: what is in an index, for those who open the folder."""

from keras_metric._text import as_markdown, visible


def card(index, saved):
    """The card as Markdown."""
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
        f"| kind | {index.kind} {_settings(index)} |",
        "",
        "| rule | threshold | false-match rate | target | impostors | miss rate | genuine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for point in index.operating_points.values():
        lines.append(
            f"| {as_markdown(point.rule)} | {point.threshold:.6g} | {point.false_match_rate:.3g} | "
            f"{point.target:.3g} | {point.num_impostors:,} | {point.miss_rate:.3g} | "
            f"{point.num_genuine:,} |"
        )
    if not index.operating_points:
        lines.append("| not calibrated | | | | | | |")
    return "\n".join(lines) + "\n"


def _settings(index):
    return ", ".join(f"{name}={value}" for name, value in index.settings.items())
