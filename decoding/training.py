"""From vectors back to images: a decoder trained on an encoder's vectors, and what it makes of others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.decoder import Decoder
from ..runtime.errors import EngineError
from ..runtime.fidelity import Vectors
from ..runtime.preprocessing import Pixels
from ..runtime.progress import Progress, report_progress

# The largest side of an image that is decoded, in pixels: a vector holds no more detail (docs/decoding.md).
MOST_SIDE = 64
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, WARMUP = 32, 3e-3, 0.01, 0.1
# Images that a decoder sees in training where the number of epochs is not given: each of few many times.
SEEN = 25_000
# Numbers of vectors that vary less do not vary, and are left as they are; of images that are all alike, a decoder's
# first guesses are off by no more than a byte's step.
NOISE, LEAST_DEVIATION = 1e-6, 1 / 255
# Images that are decoded, or summed up, at a time.
BLOCK = 256


@dataclass(frozen=True)
class VectorDecoder:
    """A decoder with what it takes to use it: vectors are standardized, and what it gives is added to the mean image.

    `center`, `spread`: of the vectors it was trained on, `[D]`. `mean`: of their images, `[3, side, side]`, 0 to 1;
    `deviation`: of their pixels from it.
    """

    network: Decoder
    center: Tensor
    spread: Tensor
    mean: Tensor
    deviation: Tensor

    @property
    def embedding_size(self) -> int:
        return len(self.center)

    @property
    def side(self) -> int:
        return self.network.side

    @torch.no_grad()
    def decode(self, vectors: Vectors) -> Pixels:
        """Vectors `[N, D]` of unit length → images uint8 `[N, side, side, 3]`."""
        images = torch.cat([self._decode(batch) for batch in torch.from_numpy(vectors).split(BLOCK)])
        return (255 * images).round().clamp(0, 255).byte().movedim(1, 3).contiguous().numpy()

    def standardize(self, vectors: Tensor) -> Tensor:
        return (vectors - self.center) / self.spread

    def _decode(self, vectors: Tensor) -> Tensor:
        return self.mean + self.deviation * self.network(self.standardize(vectors))


def choose_epochs(images: int) -> int:
    """So many that a decoder sees 25,000 images, and each image once to 100 times."""
    return min(100, max(1, round(SEEN / images)))


def train_decoder(vectors: Vectors, images: Pixels, epochs: int, seed: int, label: str) -> VectorDecoder:
    """A decoder of vectors `[N, D]` to their images uint8 `[N, side, side, 3]`, N ≥ 2, by mean squared error.

    The same seed gives the same decoder. AdamW with a warm-up and a cosine; the last step's weights are kept, so that
    no held-out image has a part in it. Logs progress under `label`. Raises EngineError where the loss is not finite.
    """
    pixels = torch.from_numpy(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = _prepare(torch.from_numpy(vectors), pixels)
        network = decoder.network
        standardized = decoder.standardize(torch.from_numpy(vectors))
        size = min(BATCH_SIZE, len(pixels))
        per_epoch = len(pixels) // size
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        total, done, loss = epochs * per_epoch, 0, torch.zeros(())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
        for _ in range(epochs):
            for batch in torch.randperm(len(pixels))[: per_epoch * size].split(size):
                wanted = (_to_floats(pixels[batch]) - decoder.mean) / decoder.deviation
                loss = (network(standardized[batch]) - wanted).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                done += 1
                report_progress(Progress(label, done, total, "steps"))
    if not torch.isfinite(loss):
        raise EngineError(f"the decoder of {label} did not learn: its loss is {loss.item()}")
    network.eval()
    return decoder


def _prepare(vectors: Tensor, pixels: Tensor) -> VectorDecoder:
    """A decoder before its first step: with random weights, and what standardizes vectors and images."""
    mean = torch.stack([_to_floats(each).sum(0) for each in pixels.split(BLOCK)]).sum(0) / len(pixels)
    errors = [(_to_floats(each) - mean).square().sum() for each in pixels.split(BLOCK)]
    deviation = (torch.stack(errors).sum() / pixels.numel()).sqrt()
    spread = vectors.std(0, correction=0)
    return VectorDecoder(
        network=Decoder(vectors.shape[1], pixels.shape[1]).train(),
        center=vectors.mean(0),
        spread=torch.where(spread > NOISE, spread, 1),
        mean=mean,
        deviation=deviation.clamp(min=LEAST_DEVIATION),
    )


def _to_floats(pixels: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` → `[N, 3, H, W]`, 0 to 1."""
    return pixels.movedim(3, 1).float() / 255


def _rate(step: int, steps: int) -> float:
    """The learning rate at a step, as a share of the highest: a linear warm-up, then a cosine to 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
