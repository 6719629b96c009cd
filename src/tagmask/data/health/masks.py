"""Masks held against tags: both say what is on an image, so where they differ one of them is read wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tagmask.types import BACKGROUND, IGNORE_INDEX, ClassList, Sample

#: Masks may hold more than the tags (small things are often left untagged), so only many such masks are a doubt.
MANY_EXTRA = 0.5
_SURE = 0.8


def mask_doubts(
    classes: ClassList, samples: Sequence[Sample], labels: Sequence[frozenset[int] | None]
) -> Iterator[str]:
    """One sentence for each way in which the masks contradict the tags, with the remedy.

    Args:
        classes: the class list.
        samples: all images.
        labels: the numbers in each one's mask; None where there is no (readable) mask.
    """
    masks = [
        (sample, found - {BACKGROUND, IGNORE_INDEX}, found)
        for sample, found in zip(samples, labels, strict=True)
        if found is not None
    ]
    tagged = [mask for mask in masks if mask[0].tags]
    void_alone = [sample for sample, there, found in tagged if not there and IGNORE_INDEX in found]
    if void_alone:
        name = classes.foreground[0] if len(classes.foreground) == 1 else "NAME"
        remedy = f"If it is the class: data.mask_values='{{0: background, 255: {name}}}'."
        count = f"{len(void_alone)} of {len(tagged)} masks of tagged images"
        yield f"{count} hold 255 and no class, such as {void_alone[0].id}: 255 is not counted. {remedy}"
    silent = {sample.id for sample in void_alone}
    wrong = [
        (sample, there) for sample, there, _ in tagged if sample.id not in silent and not there.issuperset(sample.tags)
    ]
    if wrong:
        sample, there = wrong[0]
        yield (
            f"{len(wrong)} of {len(tagged)} masks lack a class that is tagged, such as {sample.id}: tagged "
            f"{_names(classes, sample.tags)}, the mask holds {_names(classes, there)}.{_order(classes, tagged)}"
        )
    extra = [
        (sample, there) for sample, there, _ in masks if not there <= set(sample.tags) and there.issuperset(sample.tags)
    ]
    if len(extra) > MANY_EXTRA * len(masks):
        sample, there = extra[0]
        names = _names(classes, there - set(sample.tags))
        yield (
            f"{len(extra)} of {len(masks)} masks hold classes that are not tagged, such as {sample.id}: {names}. "
            "Are the tags complete, and are the numbers classes (not objects)?"
        )


def _names(classes: ClassList, labels: Sequence[int] | frozenset[int]) -> str:
    return ", ".join(classes.names[label] for label in sorted(labels)) or "none"


def _order(classes: ClassList, masks: Sequence[tuple[Sample, frozenset[int], frozenset[int]]]) -> str:
    """The numbering that the images of one tag and one number speak for, where it is another than the class list's."""
    votes: dict[int, Counter[int]] = {}
    for sample, there, _ in masks:
        if len(sample.tags) == len(there) == 1:
            votes.setdefault(next(iter(there)), Counter())[sample.tags[0]] += 1
    numbering = {number: counts.most_common(1)[0] for number, counts in sorted(votes.items())}
    sure = all(times >= _SURE * votes[number].total() for number, (_, times) in numbering.items())
    tags = [tag for tag, _ in numbering.values()]
    if not sure or len(set(tags)) < len(tags) or all(number == tag for number, (tag, _) in numbering.items()):
        return " Are the numbers in the order of the class list?"
    values = ", ".join(f"{number}: {classes.names[tag]}" for number, (tag, _) in numbering.items())
    return f" The numbers seem to be in another order: data.mask_values='{{0: background, {values}}}'."
