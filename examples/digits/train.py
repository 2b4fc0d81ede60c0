"""Train a small convolutional network on scikit-learn's handwritten digits, and export it to ONNX.

Writes beside itself ``digits.onnx`` (input ``image``, float32 [batch, 1, 8, 8], 0 to 1; output ``scores``, float32
[batch, 10]), ``heldout.npz`` (``image`` and ``labels`` that training never saw), and one of those digits as
``seven.npy`` and ``seven.png``. The same machine and library versions give the same files each time.

Needs torch, onnxscript, scikit-learn and pillow; using what it wrote needs none of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
EPOCHS = 40
BATCH = 64
HELD_OUT = 0.2
SEVEN = 7


class Digits(nn.Module):
    """Three 3x3 convolutions, then two linear layers: 8x8 pixels in, ten scores out."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(8 * width, 2 * width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(2 * width, 10)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a score for each of the ten digits."""
        scores: torch.Tensor = self.classifier(self.features(image))
        return scores


def load_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images for training and held out, then the labels of each; one fifth of each digit is held out."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    return tuple(train_test_split(images, labels, test_size=HELD_OUT, random_state=0, stratify=labels))


def train(images: np.ndarray, labels: np.ndarray) -> Digits:
    """Return the network trained on `images`, in evaluation mode."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        order = torch.randperm(len(inputs))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[rows]), targets[rows], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: Digits, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of `images` whose largest score stands at its label."""
    with torch.no_grad():
        return float((model(torch.from_numpy(images)).argmax(1).numpy() == labels).mean())


def export(model: Digits, path: Path) -> None:
    """Write the network as ONNX with a batch of any size."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes=({0: "batch"},),
        opset_version=20,
        verbose=False,
    )
    graph = program.model
    graph.graph.name = "digits"
    for node in graph.graph:  # the exporter writes paths of this machine into every node
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        node.metadata_props.pop("pkg.torch.onnx.fx_node", None)
    ir.save(graph, path)


def main() -> None:
    """Train, export, and write the held-out digits."""
    images, held_images, labels, held_labels = load_split()
    model = train(images, labels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    right = accuracy(model, held_images, held_labels)
    print(f"{parameters} parameters; {right:.2%} of {len(held_labels)} held-out digits right")
    export(model, HERE / "digits.onnx")
    np.savez_compressed(HERE / "heldout.npz", image=held_images, labels=held_labels)
    seven = held_images[np.flatnonzero(held_labels == SEVEN)[0]]
    np.save(HERE / "seven.npy", seven[None])
    Image.fromarray((seven[0] * 255).round().astype(np.uint8)).save(HERE / "seven.png")


if __name__ == "__main__":
    main()
