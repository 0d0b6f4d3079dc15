"""An audit in words: what is to be warned of, and the lines that are printed. It takes a result as it was read, and is light."""

from typing import Any

from stages.progress import counted

# Lines of each list that are printed.
PRINTED = 5


def warnings(result: dict[str, Any]) -> list[str]:
    """What spoils scores, by name: near-copies in train of images that heads are scored on, and what they are worth."""
    what = "a copy, a near-copy or an image of their group" if result["grouped"] else "a copy or near-copy"
    return [_told(split, leak, what) for split, leak in result["leak"].items() if leak["copied"]]


def _told(split: str, leak: dict[str, Any], what: str) -> str:
    images = counted(leak["copied"], f"{split} image")
    have = "has" if leak["copied"] == 1 else "have"
    such = " (such as {} of {})".format(*leak["example"]) if leak["example"] else ""
    worth = f"the accuracy of one nearest neighbour on {split} is {leak['accuracy']:.3f}"
    if leak["without"] is None:
        worth, certain = f"{worth}, and no image is left without them", True
    else:
        low, high = leak["without_interval"]
        worth = f"{worth}, and {leak['without']:.3f} ({low:.3f} to {high:.3f}) without them"
        certain = leak["accuracy"] > high
    are = "are" if certain else "may be"
    return f"{images} of {leak['n']:,} {have} {what} in train{such}, so that scores on {split} {are} too high: {worth}"


def doubled(curve: dict[str, Any]) -> str:
    """What twice the training images might give, in words; what is known, where no law could be fitted."""
    now = curve["points"][-1]
    if not curve["doubled"]:
        return f"{counted(now['images'], 'training image')}: {now['accuracy']:.3f} on validation; no law fits the curve"
    more = curve["doubled"]
    return (
        f"twice as many training images ({now['images']:,} → {more['images']:,}): accuracy on validation "
        f"{now['accuracy']:.3f} → {more['accuracy']:.3f} ({more['low']:.3f} to {more['high']:.3f})"
    )


def summary(result: dict[str, Any]) -> list[str]:
    """The lines of an audit: counts, and the first of each list."""
    lines = [f"warning: {line}" for line in warnings(result)]
    copies, labels, curve = result["copies"], result["labels"], result["curve"]
    if "near_copies" not in result["left_out"]:
        groups = counted(copies["groups"], "group")
        lines.append(
            f"near-copies: {counted(copies['images'], 'image')} in {groups}, {copies['across']:,} of them across splits, "
            f"{copies['labels_differ']:,} with different labels"
        )
        for group in copies["first"][:PRINTED]:
            shown = ", ".join(f"{each['path']} ({each['split']})" for each in group["members"][:4])
            more = group["images"] - 4
            similarity = max(float(each["similarity"]) for each in group["members"])
            lines.append(f"  {similarity:.4f}  {shown}{f' and {more:,} more' if more > 0 else ''}")
    if labels:
        heads = (
            f"to heads that are right for {labels['accuracy']:.0%} of all images; some are hard to tell, and not wrong"
        )
        lines.append(f"suspicious labels: {labels['suspicious']:,} of {result['images']:,}, {heads}")
        lines += [
            f"  {each['path']}: {each['label']} (probability {float(each['p_label']):.3f}), likely {each['likely']} "
            f"({float(each['p_likely']):.3f})"
            for each in labels["first"][:PRINTED]
        ]
    counts = result["outliers"]["counts"]
    lines.append(f"outliers: {', '.join(f'{n:,} {what}' for what, n in counts.items()) or 'none'}")
    for what in counts:
        rows = [each for each in result["outliers"]["first"] if each["problem"] == what]
        lines += [f"  {each['path']}: {what}, {each['detail']}" for each in rows[:PRINTED]]
    if curve:
        lines.append(f"learning curve: {doubled(curve)}")
    pixels = {"pixels": "pixels: "}
    return lines + [f"left out: {pixels.get(part, '')}{reason}" for part, reason in result["left_out"].items()]
