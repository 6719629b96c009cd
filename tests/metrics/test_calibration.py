"""Calibration from the sweep's histogram, against the definition pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.metrics import ThresholdSweep, calibration

THRESHOLDS = 100


def swept(images):
    sweep = ThresholdSweep(2, THRESHOLDS)
    for maps, mask in images:
        sweep.update(np.asarray(maps, np.float32), np.arange(len(maps)), np.asarray(mask))
    return sweep


def test_scores_that_mean_what_they_say_have_no_error():
    """Of the pixels with score p (a fine bin's middle), the share p is of the class."""
    scores = np.repeat([0.205, 0.505, 0.805], 200)[None]
    truth = np.concatenate([np.arange(200) < round(200 * p) for p in (0.205, 0.505, 0.805)]).astype(int)[None]
    result = calibration(swept([([scores], truth)]).counts.sum(0), np.arange(101) / 100, threshold=0.4)
    assert result["ece"] == pytest.approx(0, abs=1e-9)
    assert result["confidence"] == pytest.approx([0.205, 0.505, 0.805])
    assert result["accuracy"] == pytest.approx(result["confidence"])
    assert result["pixels"] == pytest.approx([1 / 3] * 3)
    # 0.205 is below the threshold: the label is background, with confidence 0.795, right in 795 of 1000 pixels.
    assert result["label_ece"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("void", ["ignored", "background"])
def test_against_the_definition(void):
    rng = np.random.default_rng(0)
    images = [(rng.random((k, 20, 30)), rng.choice([0, 1, 2, 255], (20, 30))) for k in (1, 2, 2, 0)]
    sweep, threshold = swept(images), 0.4
    confidence, right, sure, fits = [], [], [], []
    for maps, mask in images:
        maps, mask = np.asarray(maps, np.float32), mask.copy()
        if void == "background":
            mask[mask == 255] = 0
        known = mask != 255
        score = maps.max(0)[known] if len(maps) else np.zeros(known.sum())
        label = maps.argmax(0)[known] + 1 if len(maps) else np.ones(known.sum())
        score = np.where(score > 0, np.ceil(score * THRESHOLDS) / THRESHOLDS - 0.5 / THRESHOLDS, 0)
        confidence.append(score)
        right.append(label == mask[known])
        above = score > threshold
        sure.append(np.where(above, score, 1 - score))
        fits.append(np.where(above, label, 0) == mask[known])

    def ece(parts, hits):
        values, hits = np.concatenate(parts), np.concatenate(hits)
        place = np.clip(np.ceil(values * 20 - 1e-9) - 1, 0, 19)
        return sum(abs((values - hits)[place == b].sum()) for b in range(20)) / len(values)

    result = calibration(sweep.counts.sum(0), sweep.thresholds, threshold=threshold, void=void)
    assert result["ece"] == pytest.approx(ece(confidence, right))
    assert result["label_ece"] == pytest.approx(ece(sure, fits))
    assert sum(result["pixels"]) == pytest.approx(1)


def test_nothing_to_calibrate():
    result = calibration(ThresholdSweep(2, 10).counts.sum(0), np.arange(11) / 10)
    assert result == {"confidence": [], "accuracy": [], "pixels": [], "ece": None}
