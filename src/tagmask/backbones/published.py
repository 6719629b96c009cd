"""timm's published weights: taken from this machine where it has them, and asked for only where a network answers.

huggingface_hub tries again for 25 seconds a file before it says that it has no network, and timm asks for two files;
so the network is asked once, briefly, before it is relied on.
"""

from __future__ import annotations

import os
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from urllib.parse import urlparse

import huggingface_hub
import timm
import torch
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

from tagmask.backbones.installed import DEFAULT
from tagmask.errors import InputError

PATIENCE = 4.0  # seconds; a name server that does not answer heeds no timeout of ours
_FILES = ("model.safetensors", "pytorch_model.bin")  # in timm's order


def published_copy(network: str, setting: str) -> Path | None:
    """The file of timm's weights of a network, if it was downloaded before.

    Args:
        network: timm's name of it.
        setting: the recipe key that names the network, for messages.

    Returns:
        None: timm is to get them, from a network that answers, or to say that there are none.

    Raises:
        InputError: they are not here, and no network answers.
    """
    try:
        weights = timm.models.get_pretrained_cfg(network)
    except RuntimeError:  # of a tag that timm does not know, it says so itself
        return None
    if weights is None or not (weights.hf_hub_id or weights.url):
        return None  # timm says that there are none
    if not weights.hf_hub_id:
        url = weights.url[0] if isinstance(weights.url, tuple) else str(weights.url)  # a pair: with a name for the file
        if not Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path)).is_file():
            _ask(url, network, setting)
        return None
    repository, _, revision = weights.hf_hub_id.partition("@")
    files = (weights.hf_hub_filename,) if weights.hf_hub_filename else _FILES
    copies = [huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None) for file in files]
    copy = next((Path(path) for path in copies if isinstance(path, str)), None)
    if copy is None:
        _ask(huggingface_hub.hf_hub_url(repository, files[0], revision=revision or None), network, setting)
    return None if weights.custom_load else copy


def _ask(url: str, network: str, setting: str) -> None:
    """One request for the head of a file, of which any answer will do but a server's or a proxy's refusal."""
    answers: SimpleQueue[str] = SimpleQueue()

    def head() -> None:
        try:
            status = get_session().head(url, timeout=PATIENCE).status_code
            answers.put(f"the server answers {status}" if status >= 500 else "")
        except Exception as error:  # of the client's library, which changes between versions
            answers.put(" ".join(str(error).split())[:100] or type(error).__name__)

    Thread(target=head, daemon=True).start()
    try:
        trouble = answers.get(timeout=PATIENCE)
    except Empty:
        trouble = f"no answer in {PATIENCE:g} s"
    if trouble:
        msg = (
            f"{setting}={network}: its published weights are not on this machine and no network answers ({trouble}). "
            f"Set classify.weights and segment.network.weights to 'installed' (for backbone and encoder {DEFAULT}, "
            "whose weights pip has installed), to a local safetensors file, or to null to start from scratch"
        )
        raise InputError(msg)
