"""One mechanism for every kind of method: a table from name to where it lives, resolved when first used.

A new method is one file and one line here. Other packages add theirs with :func:`register` or through the
entry-point group ``tagmask.methods`` (entry-point name ``kind.name``).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal, get_args

from tagmask.errors import UnknownNameError

Kind = Literal["data", "head", "localizer", "refiner", "network", "loss", "saliency"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method lives ('module:attribute'), what it does in a line, and its source."""

    where: str
    summary: str
    paper: str = ""


_TABLE: dict[Kind, dict[str, Entry]] = {
    "data": {
        "voc": Entry(
            "tagmask.data.voc.source:VocSource",
            "PASCAL VOC layout (VOC 2007/2012, SBD, own data)",
            "Everingham et al., IJCV 2010",
        ),
        "table": Entry("tagmask.data.table.source:TableSource", "CSV or Parquet table of images and tags"),
        "folders": Entry("tagmask.data.folders:FoldersSource", "one folder per class"),
        "coco": Entry("tagmask.data.coco.source:CocoSource", "COCO instances JSON", "Lin et al., ECCV 2014"),
        "cub": Entry("tagmask.data.localisation.cub:CubSource", "CUB-200-2011, boxes included", "Wah et al., 2011"),
        "ilsvrc": Entry(
            "tagmask.data.localisation.ilsvrc:IlsvrcSource",
            "ImageNet's localisation challenge, boxes included",
            "Russakovsky et al., IJCV 2015",
        ),
        "wsol": Entry(
            "tagmask.data.localisation.wsol:WsolListsSource",
            "wsolevaluation's lists: boxes, or OpenImages' masks",
            "Choe et al., CVPR 2020",
        ),
        "partsworld": Entry("tagmask.data.partsworld.source:PartsWorldSource", "the embedded procedural data set"),
    },
    "head": {
        "gap": Entry(
            "tagmask.methods.cam.head:GapHead",
            "global average pooling, bias-free 1x1 convolution",
            "Zhou et al., CVPR 2016",
        ),
        "hspp": Entry(
            "tagmask.methods.hspp.head:HsppHead",
            "hybrid spatial pyramid pooling: maxima of several grids, and the mean",
            "Ru et al., IJCAI 2021",
        ),
        "visual_words": Entry(
            "tagmask.methods.visual_words.head:VisualWordsHead",
            "visual word encoder on any head: learns words beside the classes",
            "Ru et al., IJCAI 2021",
        ),
        "recam": Entry(
            "tagmask.methods.recam.head:RecamHead",
            "a second classifier, by softmax, on features cut out with each class's map; around any head",
            "Chen et al., CVPR 2022",
        ),
        "softmax_ce": Entry(
            "tagmask.methods.softmax_ce.head:SoftmaxCeHead",
            "gap trained by softmax cross entropy (an ablation of ReCAM)",
            "Chen et al., CVPR 2022",
        ),
        "restricted": Entry(
            "tagmask.methods.spa.head:RestrictedHead",
            "softmax cross entropy and SPA's restricted activation, for object localisation",
            "Pan et al., CVPR 2021",
        ),
        "subcategory": Entry(
            "tagmask.methods.sc_cam.head:SubcategoryHead",
            "a second classifier for clusters of each class's images; around any head, in retraining",
            "Chang et al., CVPR 2020",
        ),
    },
    "localizer": {
        "cam": Entry(
            "tagmask.methods.cam.localizer:Cam",
            "class activation maps, multi-scale and flip",
            "Zhou et al., CVPR 2016",
        ),
        "visual_words": Entry(
            "tagmask.methods.visual_words.localizer:VisualWords",
            "maps of a classifier with visual words: image branch, word branch or both",
            "Ru et al., IJCAI 2021",
        ),
        "ssa": Entry(
            "tagmask.methods.ssa.localizer:Ssa",
            "maps averaged over positions that look alike, two stages guiding each other",
            "Sun & Li, arXiv 2021",
        ),
        "scg": Entry(
            "tagmask.methods.spa.localizer:Scg",
            "maps made anew from positions that look like their foreground, minus those like their background",
            "Pan et al., CVPR 2021",
        ),
        "judged": Entry(
            "tagmask.methods.judged.localizer:Judged",
            "one method's maps say where objects are, another's which of the image's classes they are",
        ),
        "lpcam": Entry(
            "tagmask.methods.lpcam.localizer:Lpcam",
            "similarity to prototypes of the class minus similarity to those of its context",
            "Chen & Sun, CVPR 2023",
        ),
        "advcam": Entry(
            "tagmask.methods.advcam.localizer:AdvCam",
            "maps summed while the image is changed in favour of each class",
            "Lee et al., CVPR 2021",
        ),
        "class_conditional": Entry(
            "tagmask.methods.class_conditional.localizer:ClassConditional",
            "maps of cuts of the image, and of the image without what was found before",
            "Sun et al., WACV 2022",
        ),
        "recam": Entry(
            "tagmask.methods.recam.localizer:Recam",
            "maps of ReCAM's second classifier, alone or combined with the first",
            "Chen et al., CVPR 2022",
        ),
    },
    "refiner": {
        "affinitynet": Entry(
            "tagmask.methods.affinitynet.refiner:AffinityNet",
            "random walk of maps and background over pixels that a network learns to be alike",
            "Ahn & Kwak, CVPR 2018",
        ),
        "threshold": Entry(
            "tagmask.methods.threshold.refiner:Threshold",
            "one background threshold, fixed or chosen without any mask ('auto')",
        ),
        "colour_walk": Entry(
            "tagmask.methods.colour_walk.refiner:ColourWalk",
            "random walk of the maps over colour affinities, nothing to train",
        ),
        "dense_crf": Entry(
            "tagmask.methods.dense_crf.refiner:DenseCrf",
            "fully connected CRF: every two pixels should agree, near ones of like colour most; nothing to train",
            "Krähenbühl & Koltun, NIPS 2011",
        ),
        "irnet": Entry(
            "tagmask.methods.irnet.refiner:IRNet",
            "random walk of the maps inside class boundaries that a network learns from them",
            "Ahn et al., CVPR 2019",
        ),
        "pamr": Entry(
            "tagmask.methods.pamr.refiner:Pamr",
            "means over neighbours of like colour pull the maps to outlines, nothing to train",
            "Araslanov & Roth, CVPR 2020",
        ),
    },
    "network": {
        "deeplabv3plus": Entry(
            "tagmask.methods.deeplabv3plus.network:DeepLabV3Plus",
            "DeepLabV3+, any timm encoder",
            "Chen et al., ECCV 2018",
        ),
        "deeplabv2": Entry(
            "tagmask.methods.deeplabv2.network:DeepLabV2",
            "DeepLabV2, ResNet-101 at three scales, as most papers of this field train it",
            "Chen et al., TPAMI 2018",
        ),
        "upernet": Entry(
            "tagmask.methods.upernet.network:UPerNet", "UPerNet, Swin or any timm encoder", "Xiao et al., ECCV 2018"
        ),
        "segformer": Entry(
            "tagmask.methods.segformer.network:Segformer",
            "SegFormer, the light option: a small transformer, linear decoder",
            "Xie et al., NeurIPS 2021",
        ),
    },
    "loss": {
        "cross_entropy": Entry(
            "tagmask.methods.cross_entropy.loss:CrossEntropy", "mean cross entropy over labelled pixels"
        ),
        "saliency_bce": Entry(
            "tagmask.methods.aamr.loss:SaliencyBce",
            "cross entropy, and the background against saliency with a constant weight (an ablation of aamr)",
            "Sun et al., WACV 2022",
        ),
        "aamr": Entry(
            "tagmask.methods.aamr.loss:Aamr",
            "cross entropy, and the background against saliency, the more the better it fits the pseudo mask",
            "Sun et al., WACV 2022",
        ),
    },
    "saliency": {
        "folder": Entry(
            "tagmask.methods.saliency_folder.saliency:FolderSaliency", "pictures of another program, one per image id"
        ),
        "function": Entry(
            "tagmask.methods.saliency_function.saliency:FunctionSaliency", "a function of yours, 'module:function'"
        ),
        "minimum_barrier": Entry(
            "tagmask.methods.minimum_barrier.saliency:MinimumBarrier",
            "what the border cannot reach without crossing an edge; nothing to train",
            "Zhang et al., ICCV 2015",
        ),
    },
}
_entry_points_read = False


def _table(kind: Kind) -> dict[str, Entry]:
    global _entry_points_read
    if not _entry_points_read:
        _entry_points_read = True
        for point in entry_points(group="tagmask.methods"):
            point_kind, _, name = point.name.partition(".")
            if point_kind in get_args(Kind):
                _TABLE[point_kind].setdefault(name, Entry(point.value, f"from {point.dist}"))  # type: ignore[index]
    return _TABLE[kind]


def register(kind: Kind, name: str, where: str, *, summary: str = "", paper: str = "") -> None:
    """Add a method. ``where`` is 'module:attribute'; a name that is taken is an error."""
    table = _table(kind)
    if name in table and table[name].where != where:
        msg = f"{kind} '{name}' is already registered at {table[name].where}"
        raise ValueError(msg)
    table[name] = Entry(where, summary, paper)


def entries(kind: Kind) -> dict[str, Entry]:
    """All methods of a kind by name."""
    return dict(_table(kind))


def get(kind: Kind, name: str, *, where: str = "") -> Any:
    """The class behind a name; import errors of the method itself pass through untouched.

    Raises:
        UnknownNameError: no such method; the message offers the nearest right name.
    """
    table = _table(kind)
    if name not in table:
        raise UnknownNameError(kind, name, table, where)
    module, _, attribute = table[name].where.partition(":")
    return getattr(importlib.import_module(module), attribute)
