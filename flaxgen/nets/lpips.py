"""The learned perceptual distance of pictures, LPIPS [Zhang18], on VGG16's features [Simonyan15]."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets.autoencoder import check_pictures
from flaxgen.nets.resnet import max_pool

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of pixels in [-1, 1], by which VGG16's ImageNet pictures are whitened."""
WIDTHS = (64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)
"""The convolutions between VGG16's maxima; the last of each group gives features."""
EPSILON = 1e-10


class Vgg16(nn.Module):
    """VGG16 without its dense layers: groups of convolutions of `widths`, with maxima of 2 x 2 pixels between them."""

    widths: tuple[tuple[int, ...], ...] = WIDTHS

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> list[Float[Array, "B _ _ _"]]:
        """relu1_2, 2_2, 3_3, 4_3 and 5_3 of whitened pictures."""
        features = []
        for i, group in enumerate(self.widths):
            x = x if i == 0 else max_pool(_even(x))
            for j, width in enumerate(group):
                x = nn.relu(nn.Conv(width, (3, 3), name=f"conv_{i}_{j}")(x))
            features.append(x)
        return features


def _even(x: Float[Array, "B H W C"]) -> Float[Array, "B _ _ C"]:
    """Without the last row and column of an odd number, which no 2 x 2 pixels hold."""
    return x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]


def unit(x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Channels over their norm; where all are 0, as ReLUs leave them, 0 with a gradient of 0."""
    square = jnp.square(x).sum(-1, keepdims=True)
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    return jnp.where(square > 0, x / (norm + EPSILON), 0)


class Lpips(nn.Module):
    """The distance of two pictures: of features at five depths, made unit vectors, the squared differences, weighted a
    channel and averaged over pixels [Zhang18, eq. 1].

    The parameters are VGG16's, "vgg", and the weights of the channels, "weight_0" to "weight_4"; `weights.lpips` reads
    the published ones. They are not trained: give them to a loss as they are.
    """

    widths: tuple[tuple[int, ...], ...] = WIDTHS

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], y: Float[Array, "B H W C"]) -> Float[Array, " B"]:
        """The distances of RGB pictures in [-1, 1], 0 for the same.

        Raises:
            ValueError: if they have not three channels, or fewer pixels a side than the last features need.
        """
        check_pictures(x, len(SHIFT))
        least = 2 ** (len(self.widths) - 1)
        if min(x.shape[1:3]) < least:
            raise ValueError(f"image size {x.shape[1]}x{x.shape[2]} is too small for LPIPS: {least} pixels at least")
        shift, scale = (jnp.asarray(values)[None, None, None] for values in (SHIFT, SCALE))
        both = (jnp.concatenate((x, y)) - shift) / scale
        total = jnp.zeros(len(x))
        for i, features in enumerate(Vgg16(self.widths, name="vgg")(both)):
            weight = self.param(f"weight_{i}", nn.initializers.ones, (features.shape[-1],))
            first, second = jnp.split(unit(features), 2)
            total += (jnp.square(first - second) * weight[None, None, None]).sum(-1).mean((1, 2))
        return total
