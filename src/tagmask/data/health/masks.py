"""Masks held against tags: both say what is on an image, so where they differ one of them is read wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from tagmask.types import BACKGROUND, IGNORE_INDEX, ClassList, Sample

#: Masks may hold more than the tags (small things are often left untagged), so only many such masks are a doubt.
MANY_EXTRA = 0.5
#: Share of the one-class images that must agree before another numbering is proposed.
_SURE = 0.8


@dataclass(frozen=True, slots=True)
class _Mask:
    """One mask: its image, the classes in it, and whether it has pixels that are not counted."""

    sample: Sample
    classes: frozenset[int]
    has_void: bool


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
        _Mask(sample, numbers - {BACKGROUND, IGNORE_INDEX}, IGNORE_INDEX in numbers)
        for sample, numbers in zip(samples, labels, strict=True)
        if numbers is not None
    ]
    tagged = [mask for mask in masks if mask.sample.tags]
    # Masks of 0 and 255: 255 is not counted, so any prediction would score 100 on them.
    void_alone = [mask for mask in tagged if not mask.classes and mask.has_void]
    if void_alone:
        name = classes.foreground[0] if len(classes.foreground) == 1 else "NAME"
        count = f"{len(void_alone)} of {len(tagged)} masks of tagged images"
        remedy = f"If it is the class: data.mask_values='{{0: background, 255: {name}}}'."
        yield f"{count} hold 255 and no class, such as {void_alone[0].sample.id}: 255 is not counted. {remedy}"
    lacking = [m for m in tagged if (m.classes or not m.has_void) and not m.classes.issuperset(m.sample.tags)]
    if lacking:
        first = lacking[0]
        yield (
            f"{len(lacking)} of {len(tagged)} masks lack a class that is tagged, such as {first.sample.id}: tagged "
            f"{_names(classes, first.sample.tags)}, the mask holds {_names(classes, first.classes)}."
            f"{_order(classes, tagged)}"
        )
    extra = [m for m in masks if m.classes > set(m.sample.tags)]
    if len(extra) > MANY_EXTRA * len(masks):
        names = _names(classes, extra[0].classes - set(extra[0].sample.tags))
        yield (
            f"{len(extra)} of {len(masks)} masks hold classes that are not tagged, such as {extra[0].sample.id}: "
            f"{names}. Are the tags complete, and are the numbers classes (not objects)?"
        )


def _names(classes: ClassList, labels: Collection[int]) -> str:
    return ", ".join(classes.names[label] for label in sorted(labels)) or "none"


def _order(classes: ClassList, masks: Sequence[_Mask]) -> str:
    """The numbering that the images of one tag and one number speak for, where it is another than the class list's."""
    votes: dict[int, Counter[int]] = {}
    for mask in masks:
        if len(mask.sample.tags) == len(mask.classes) == 1:
            votes.setdefault(next(iter(mask.classes)), Counter())[mask.sample.tags[0]] += 1
    numbering = {number: counts.most_common(1)[0] for number, counts in sorted(votes.items())}
    sure = all(times >= _SURE * votes[number].total() for number, (_, times) in numbering.items())
    tags = [tag for tag, _ in numbering.values()]
    if not sure or len(set(tags)) < len(tags) or all(number == tag for number, (tag, _) in numbering.items()):
        return " Are the numbers in the order of the class list?"
    values = ", ".join(f"{number}: {classes.names[tag]}" for number, (tag, _) in numbering.items())
    return f" The numbers seem to be in another order: data.mask_values='{{0: background, {values}}}'."
