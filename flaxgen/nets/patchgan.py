"""The discriminator of patches that VQGAN is trained against [Isola17, Esser21]."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from flaxgen.nets.autoencoder import check_pictures
from flaxgen.nets.dcgan import INIT, TAPS, Norm
from flaxgen.nets.layers import check_positive
from flaxgen.nets.strided import shrink

WIDEST = 8
"""How many times wider than the first convolution the others become at most."""


class PatchDiscriminator(nn.Module):
    """Logits of patches being real, one a pixel of a map about `image_size / 2^depth` wide; the defaults are VQGAN's.

    Convolutions of 4 x 4: `depth` that halve the picture, one that does not, and one to the logits; the first has
    `width` channels, and each but the last twice as many as the one before, up to 8 times. All but the first and the
    last are normalised, over the batch, or as `norm` says in `dcgan.Norm`; `axis_name` names the devices that the batch
    is split over. Kernels start normal with deviation 0.02 and leaks are 0.2.
    """

    image_size: int = 256
    in_channels: int = 3
    width: int = 64
    depth: int = 3
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B h w"]:
        """The logits of pictures in [-1, 1], of any size that the net halves.

        With `train` batch norms read the batch, and move "buffers" where these are mutable.

        Raises:
            ValueError: if x has not `in_channels`, or cannot be halved `depth` times to 3 pixels or more.
        """
        check_positive(self, "in_channels", "width", "depth")
        check_pictures(x, self.in_channels)
        multiple, sizes = 2**self.depth, x.shape[1:3]
        if any(size % multiple or size < 3 * multiple for size in sizes):
            raise ValueError(
                f"image size {sizes[0]}x{sizes[1]} cannot be judged by this net: depth={self.depth} needs a multiple "
                f"of {multiple} from {3 * multiple} on; lower the depth"
            )
        last = self.depth + 1
        for i in range(last):
            x = self._convolve(x, self.width * min(2**i, WIDEST), i, 2 if i < self.depth else 1)
            x = Norm(self.norm, self.axis_name, name=f"norm_{i}")(x, train) if i > 0 else self._shift(x, i)
            x = nn.leaky_relu(x, 0.2)
        return self._shift(self._convolve(x, 1, last, 1), last)[..., 0]

    def _convolve(self, x: Array, features: int, i: int, stride: int) -> Array:
        kernel = self.param(f"kernel_{i}", INIT, (TAPS, TAPS, x.shape[-1], features))
        return jnp.asarray(shrink(x, kernel, stride, 1))

    def _shift(self, x: Array, i: int) -> Array:
        return x + self.param(f"bias_{i}", nn.initializers.zeros, (x.shape[-1],))[None, None, None]
