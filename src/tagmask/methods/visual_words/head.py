"""Visual word encoder. Ru, Du, Wu, "Learning Visual Words for Weakly-Supervised Semantic Segmentation", IJCAI 2021,
section 3.2; docs/methods/visual-words.md.

A codebook of words is learnt beside the classes. Every position gets the word that it resembles most, and the network
must tell from the image which words occur in it: to do that it has to keep details that the classes alone would let go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.head import Head, HeadField, HeadModule
from tagmask.registry.field import by_name


def word_similarity(features: Tensor, codebook: Tensor) -> Tensor:
    """Cosine of every position and every word.

    Args:
        features: [B, D, h, w] float.
        codebook: [K, D] float.

    Returns:
        float32 [B, K, h, w] in [-1, 1]; 0 where a feature or word is zero.
    """
    # Half precision would blur which of many close words is the nearest.
    with torch.autocast(features.device.type, enabled=False):
        directions = functional.normalize(features.float(), dim=1)
        words = functional.normalize(codebook.float(), dim=1)
        return functional.conv2d(directions, words[:, :, None, None])


def visual_words(features: Tensor, codebook: Tensor, *, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Which words are where in an image: equations 2 to 4 of the paper.

    Args:
        features: [B, D, h, w] float. Detach them to train the codebook only, as the published code does.
        codebook: [K, D] float.
        temperature: divides the cosines; 1 as published, where no word is more than e^2 times as likely as another.

    Returns:
        assignment float32 [B, K, h, w]: softmax over the words; labels float32 [B, K], without gradient: 1 for the
        words that are the likeliest at some position, else 0; frequency float32 [B, K]: mean of the assignment over
        the positions. Assignment and frequency sum to 1 over the words.

    Raises:
        RuntimeError: features and words have different numbers of channels.
    """
    similarity = word_similarity(features, codebook)
    assignment = (similarity / temperature).softmax(dim=1)
    nearest = similarity.detach().flatten(2).argmax(dim=1)  # [B, h * w]
    labels = torch.zeros_like(similarity[:, :, 0, 0], requires_grad=False).scatter_(1, nearest, 1.0)
    return assignment, labels, assignment.mean(dim=(2, 3))


class VisualWordsHead(Head):
    """Settings of the head; it adds words to the head ``inner``, which pools and classifies for the maps."""

    name: ClassVar[str] = "visual_words"
    provides: ClassVar[frozenset[str]] = frozenset({"codebook", "word_weights"})
    inner: HeadField = by_name("gap")
    words: Annotated[int, Field(ge=2)] = 256
    frequency: Literal["mean", "sum"] = "sum"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    detach: bool = True
    word_loss: Annotated[float, Field(ge=0)] = 1.0
    word_to_image_loss: Annotated[float, Field(ge=0)] = 1.0

    @field_validator("inner")
    @classmethod
    def _a_head_without_words(cls, inner: Head) -> Head:
        if cls.provides & inner.offers():
            msg = f"inner '{inner.name}' has visual words already"
            raise ValueError(msg)
        return inner

    def build(self, channels: int, n_classes: int) -> VisualWordsClassifier:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        return VisualWordsClassifier(channels, n_classes, self)


class VisualWordsClassifier(HeadModule):
    """features [B, D, h, w] -> logits [B, C] of the inner head; the words take part in training only.

    ``codebook`` [K, D]; ``word_weights`` [C, K] turn word frequencies into class logits; ``positions``: h * w of the
    last training view, which a response summed over positions is to be compared with.
    """

    provides: ClassVar[frozenset[str]] = VisualWordsHead.provides

    positions: Tensor

    def __init__(self, channels: int, n_classes: int, settings: VisualWordsHead) -> None:
        super().__init__()
        self.settings = settings
        self.inner = settings.inner.build(channels, n_classes)
        self.codebook = nn.Parameter(torch.empty(settings.words, channels))
        nn.init.kaiming_normal_(self.codebook, a=5**0.5)
        self.word = nn.Conv2d(channels, settings.words, kernel_size=1, bias=False)
        self.word_to_image = nn.Conv2d(settings.words, n_classes, kernel_size=1, bias=False)
        self.register_buffer("positions", torch.ones((), dtype=torch.int64))

    @property
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D] of the inner head."""
        weights: Tensor = self.inner.class_weights
        return weights

    @property
    def word_weights(self) -> Tensor:
        """Weights [C, K] from word frequencies to class logits."""
        return self.word_to_image.weight.flatten(1)

    @property
    def word_scale(self) -> float:
        """What a position's word response is multiplied with to compare with a logit: 1 for mean frequencies."""
        return float(self.positions) if self.settings.frequency == "sum" else 1.0

    def assignment(self, features: Tensor) -> Tensor:
        """Soft assignment float32 [B, K, h, w] of the positions to the words."""
        return visual_words(features, self.codebook, temperature=self.settings.temperature)[0]

    def wrapped(self) -> HeadModule:
        """The inner head."""
        return self.inner

    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits [B, C]; in training also what the losses of the words need."""
        logits, extras = self.inner(features, tags)
        if not self.training:
            return logits, extras
        settings = self.settings
        # Kept with the weights: a summed frequency is as high as the crops were large, and only training knows.
        self.positions.fill_(features.shape[2] * features.shape[3])
        _, labels, frequency = visual_words(
            features.detach() if settings.detach else features, self.codebook, temperature=settings.temperature
        )
        if settings.frequency == "sum":
            frequency = frequency * (features.shape[2] * features.shape[3])
        words = {
            "word_labels": labels,
            "word_logits": self.word(features.mean(dim=(2, 3), keepdim=True)).flatten(1),
            "word_to_image_logits": self.word_to_image(frequency[:, :, None, None]).flatten(1),
        }
        return logits, {**extras, **words}

    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inner head's loss and two soft margins: ``image`` trains the backbone and the inner head, ``word`` (which
        words occur) the backbone and its own weights, ``word_to_image`` (classes from word frequencies) the codebook
        and its own weights. ``tags`` is multi-hot [B, C]."""
        terms = dict(self.inner.losses(logits, tags, extras))
        image = terms.pop("loss")
        word = functional.multilabel_soft_margin_loss(extras["word_logits"].float(), extras["word_labels"])
        word_to_image = functional.multilabel_soft_margin_loss(extras["word_to_image_logits"].float(), tags)
        total = image + self.settings.word_loss * word + self.settings.word_to_image_loss * word_to_image
        return {"loss": total, **terms, "image": image, "word": word, "word_to_image": word_to_image}
