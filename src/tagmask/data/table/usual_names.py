"""What columns are called in other people's tables, and the words for yes, no and perhaps in their cells.

Names of columns are written as :func:`tagmask.data.table.columns.plain_name` gives them, likeliest first.
"""

from __future__ import annotations

IMAGE_COLUMNS = (
    "image", "images", "filename", "file", "imagepath", "filepath", "path", "imagename", "imagefile", "imagefilename",
    "imageid", "imageindex", "img", "imgname", "imgpath", "photo", "picture", "externalid", "id", "name",
)  # fmt: skip
TAGS_COLUMNS = (
    "tags", "labels", "classes", "categories", "tag", "label", "class", "category", "labelname", "classname",
    "categoryname", "choice", "choices", "keywords", "findinglabels", "classlabel",
)  # fmt: skip
ON = frozenset({"1", "1.0", "true", "yes", "y", "x", "✓", "present", "positive", "ja", "oui", "si", "sí", "wahr"})
OFF = frozenset({"0", "0.0", "", "false", "no", "n", "-", "absent", "negative", "nein", "non", "falsch"})
UNSURE = frozenset({"-1", "-1.0", "?", "na", "n/a", "nan", "null", "unknown", "unsure", "uncertain"})
SPLIT_COLUMNS = ("split", "subset", "partition", "set", "fold", "usage")
SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"})
MASK_COLUMNS = ("mask", "maskpath", "maskfile", "maskname")
#: Beside a column of tags in long tables: 1 where the tag of the row was confirmed, 0 where it was denied.
PRESENCE_COLUMNS = ("confidence", "present", "presence", "ispresent", "exists", "value")
#: Whole numbers that count no objects: never a class of their own.
NO_CLASS_COLUMNS = frozenset({
    "id", "index", "imageid", "width", "height", "w", "h", "x", "y", "x0", "x1", "x2", "y0", "y1", "y2", "xmin", "xmax",
    "ymin", "ymax", "left", "right", "top", "bottom", "area", "size", "nbytes", "age", "year", "month", "day", "fold",
    "date", "time", "timestamp", "patientid", "objectid", "label", "labelid", "classid", "categoryid", "unnamed0",
    "confidence", "iscrowd", "difficult", "truncated", "occluded", "pose", "isoccluded", "istruncated", "isgroupof",
    "isdepiction", "isinside", "latitude", "longitude", "lat", "lon", "rotation", "frame", "depth", "channels",
})  # fmt: skip
