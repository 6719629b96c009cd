"""Pictures that are nearly the same: enlarged or saved again, or taken a second apart. Found by perceptual hash.

pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010) by the library imagehash:
signs of the 64 lowest frequencies of the picture at 32 x 32.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import imagehash
import numpy as np
from PIL import Image

from tagmask.errors import DataError, TagmaskError
from tagmask.ops.transforms import colour_view, reduced_to
from tagmask.storage.files import user_cache
from tagmask.storage.images import chosen_values, read_image
from tagmask.storage.pixel_values import to_uint8
from tagmask.storage.records import write_json
from tagmask.types import PixelValues, Sample, UInt8Array

#: Bits of 64 in which two pictures may differ. Photographs of other scenes differ in 10 and more (MSRC).
DISTANCE = 4
_SIDE = 128  # a hash needs 32; a JPEG is decoded at a part of its size
#: Of 255: a picture without more contrast has the signs of its noise.
_FLAT = 8
_ROWS = 1024  # of pairs that are compared at a time
_VERSION = 1

K = TypeVar("K", bound=Hashable)


def perceptual_hash(image: UInt8Array) -> int | None:
    """64 bits of an image, uint8 [H, W, 3]: alike pictures differ in few of them. None for one that shows nothing."""
    picture = Image.fromarray(image).convert("L")
    if np.ptp(np.asarray(picture.resize((_SIDE // 4, _SIDE // 4), Image.Resampling.BOX))) < _FLAT:
        return None
    bits = imagehash.phash(picture).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def image_hashes(
    samples: Sequence[Sample],
    *,
    max_pixels: int,
    channels: Sequence[int] | None = None,
    workers: int | None = None,
) -> dict[str, int]:
    """Hashes by image id; one that cannot be read, or shows nothing, has none. They are kept in the user's cache.

    A file of the same size and time is not read again. ``channels``: bands of the files, counted from 1; None: colours.
    """
    if not samples:
        return {}
    folder = samples[0].image_path.parent.absolute()
    key = str(folder) if channels is None else f"{folder} {list(channels)}"
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    path = user_cache() / "tagmask" / "hashes" / f"{digest[:24]}.json"
    stored = _stored(path)

    def hash_of(sample: Sample) -> tuple[str, list[int | None]] | None:
        name = str(sample.image_path.absolute())
        try:
            status = sample.image_path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            known = stored.get(name, [])
            if known[:2] == stamp:
                return name, known
            image = _picture(sample.image_path, channels, max_pixels)
        except (DataError, OSError):
            return None  # listed by whoever needs the image
        return name, [*stamp, perceptual_hash(image)]

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(hash_of, samples))
    entries = {entry[0]: entry[1] for entry in results if entry is not None}
    if any(stored.get(name) != value for name, value in entries.items()):
        with suppress(TagmaskError):  # a cache that cannot be written costs time, nothing else
            write_json(path, {"version": _VERSION, "hashes": {**stored, **entries}})
    found = {s.id: entry[1][2] for s, entry in zip(samples, results, strict=True) if entry is not None}
    return {key: value for key, value in found.items() if value is not None}


def _picture(path: Path, channels: Sequence[int] | None, max_pixels: int) -> UInt8Array:
    """A small picture, uint8 [h, w, 3]; of more than 8 bits from the lowest to the highest of its own values."""
    values = chosen_values(path, channels, max_pixels)
    if values is None:
        return read_image(path, max_pixels=max_pixels, max_side=_SIDE)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    image = to_uint8(values, PixelValues((low,), (high if high > low else low + 1,)))
    return colour_view(reduced_to(image, _SIDE))


def _stored(path: Path) -> dict[str, list[int | None]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["hashes"]) if content["version"] == _VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def near_duplicates(hashes: Mapping[str, int], distance: int = DISTANCE) -> list[tuple[str, ...]]:
    """Groups of ids whose hashes differ in at most ``distance`` bits, from one to the next; no group of one."""
    ids = sorted(hashes)
    values = np.array([hashes[key] for key in ids], dtype=np.uint64)
    pairs = []
    for start in range(0, len(ids), _ROWS):
        bits = np.bitwise_count(values[start : start + _ROWS, None] ^ values[None])
        rows, columns = np.nonzero(bits <= distance)
        later = columns > rows + start
        pairs += [(ids[start + row], ids[column]) for row, column in zip(rows[later], columns[later], strict=True)]
    return [tuple(sorted(group)) for group in united(pairs)]


def united(links: Iterable[Sequence[K]]) -> list[list[K]]:
    """Groups of what is linked, directly or by others; members and groups in the order in which they come first."""
    parent: dict[K, K] = {}

    def root(member: K) -> K:
        while parent.setdefault(member, member) != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for members in links:
        for member in members:
            parent[root(member)] = root(members[0])
    groups: dict[K, list[K]] = {}
    for member in parent:
        groups.setdefault(root(member), []).append(member)
    return list(groups.values())
