"""An audit in words: what is to be warned of, and the lines that are printed. It takes a result as it was read, and is light."""

from typing import Any

from stages.progress import counted, in_percent

# Lines of each list that are printed.
PRINTED = 5
# What is 0.0 points where it is printed.
LEAST_GAIN = 0.0005
# What keeps images that are alike in one split: where splits are drawn, and where the folders declare them.
REMEDY = (
    'run `headstart audit --write groups.csv`, look at it, and set group = "groups.csv" in [data]; where folders declare the splits, '
    'copies = "train" as well'
)


def warnings(result: dict[str, Any]) -> list[str]:
    """What spoils scores, by name: near-copies in train of images that heads are scored on, and what they are worth; those in validation
    of test images; and what to do.
    """
    what = "a copy, a near-copy or an image of their group" if result["grouped"] else "a copy or near-copy"
    lines = [_told(split, leak, what) for split, leak in result["leak"].items() if leak["copied"]]
    if result["chosen_by"]["copied"]:
        have = _have("test", result["chosen_by"], what, "validation")
        lines.append(f"{have}, which chooses the heads, so that test scores may be too high")
    return [f"{line}; {REMEDY}" if i == len(lines) else line for i, line in enumerate(lines, 1)]


def _have(split: str, found: dict[str, Any], what: str, where: str) -> str:
    images = counted(found["copied"], f"{split} image")
    have = "has" if found["copied"] == 1 else "have"
    such = " (such as {} of {})".format(*found["example"]) if found["example"] else ""
    return f"{images} of {found['n']:,} {have} {what} in {where}{such}"


def _told(split: str, leak: dict[str, Any], what: str) -> str:
    worth = f"the accuracy of one nearest neighbour on {split} is {in_percent(leak['accuracy'])}"
    if leak["without"] is None:
        worth, certain = f"{worth}, and no image is left without them", True
    else:
        low, high = leak["without_interval"]
        worth = f"{worth}, and {in_percent(leak['without'])} ({in_percent(low)} to {in_percent(high)}) without them"
        certain = leak["accuracy"] > high
    are = "are" if certain else "may be"
    return f"{_have(split, leak, what, 'train')}, so that scores on {split} {are} too high: {worth}"


def doubled(curve: dict[str, Any]) -> str:
    """What twice the training images might give, in words; what is known, where no law could be fitted. Both ends are of the law: the
    point that was measured lies beside it by chance, or else it is said that the law misses it.
    """
    now, more = curve["points"][-1], curve["doubled"]
    if not more:
        images = counted(now["images"], "training image")
        return f"{images}: {in_percent(now['accuracy'])} on validation; no law fits the curve"
    before, after, low, high = map(
        in_percent, (more["accuracy"] - more["more"], more["accuracy"], more["low"], more["high"])
    )
    words = (
        f"twice as many training images ({now['images']:,} → {more['images']:,}) are expected to bring the accuracy on validation from "
        f"{before} to {after} ({low} to {high}), "
        f"which is {100 * more['more']:.1f} points more ({100 * more['more_low']:.1f} to {100 * more['more_high']:.1f})"
    )
    if not now["low"] <= more["accuracy"] - more["more"] <= now["high"]:
        words += f"; this is rough, as the law misses the {in_percent(now['accuracy'])} that all images came to"
    # A law never falls, so that an interval that has 0 in it begins there.
    return words if more["more_low"] >= LEAST_GAIN else f"{words}; so they are not shown to help"


def summary(result: dict[str, Any]) -> list[str]:
    """The lines of an audit: counts, and the first of each list."""
    lines = [f"warning: {line}" for line in warnings(result)]
    copies, labels, curve = result["copies"], result["labels"], result["curve"]
    if "near_copies" not in result["left_out"]:
        groups = counted(copies["groups"], "group")
        lines.append(
            f"near-copies: {counted(copies['images'], 'image')} in {groups} look like one another, {copies['across']:,} of the groups "
            f"across splits, {copies['labels_differ']:,} with different labels"
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
