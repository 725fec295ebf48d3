"""What is done to the low-resolution pictures that upsamplers are trained on.

Everything takes one picture [H W C] in [-1, 1]: batches come from `jax.vmap`, with a key an example. Sizes are static,
strengths may be traced.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flaxgen.diffusion.jpeg import jpeg
from flaxgen.types import PRNGKey, Scalar, Schedule, Time

Picture = Float[Array, "H W C"]
Index = int | Int[Array, ""]
Step = Callable[[Picture], Picture]
"""A degradation whose strength is drawn already, and which keeps the size."""
MIN_SIGMA = 1e-3
"""Below this the Gaussian at a distance of one pixel is 0 in float32, so the blur is the identity."""
NARROWEST = 0.4
"""In pixels; the samples of a longer Gaussian that is narrower than this may all fall beside it."""


class Severity(NamedTuple):
    """Up to where `bsr` draws its strengths, each uniform; all may be traced.

    `sigma` in pixels; `scale` in (0, 1] is the smallest size on the way, as a share; `noise` is a standard deviation
    where pictures span [-1, 1]; `quality` is the worst of JPEG, the best is 95. The defaults are moderate, as
    [Rombach22] found fit for diffusion: [Zhang21] goes to a quality of 30, and to noise of 0.2.
    """

    sigma: Scalar = 1.5
    scale: Scalar = 0.5
    noise: Scalar = 0.06
    quality: Scalar = 50.0


MODERATE = Severity()
MAX_QUALITY = 95.0


def downsample(image: Picture, factor: int) -> Float[Array, "h w C"]:
    """Means over blocks of factor x factor pixels, as in the training of [Dhariwal21]'s upsamplers.

    It is antialiased, and a pixel depends on its own block alone, so a crop of the small picture is the small picture
    of the crop, which no bicubic filter can say.

    Raises:
        ValueError: if a side is not a multiple of factor.
    """
    height, width, channels = image.shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"a picture of {height}x{width} has no {factor} times smaller one: use a divisor of both sides"
        )
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean(axis=(1, 3))


def upsample(image: Float[Array, "h w C"], factor: int) -> Picture:
    """Bicubic to `factor` times the size, as upsamplers see their low-resolution picture [Nichol21b]."""
    height, width, channels = image.shape
    return jax.image.resize(image, (factor * height, factor * width, channels), "bicubic")


def gaussian_blur(image: Picture, sigma: Scalar, radius: int) -> Picture:
    """Blur of standard deviation `sigma` in pixels by a kernel that ends at `radius`, the picture mirrored at its
    borders about their pixels' centres; sigma=0 is the identity."""
    distance = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-(distance**2) / (2 * jnp.maximum(sigma, MIN_SIGMA) ** 2))
    weights = (weights / weights.sum()).astype(image.dtype)
    for axis, size in enumerate(image.shape[:2]):
        padded = jnp.pad(image, [(radius, radius) if i == axis else (0, 0) for i in range(3)], mode="reflect")
        taps = [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(2 * radius + 1)]
        image = sum((weight * tap for weight, tap in zip(weights, taps, strict=True)), jnp.zeros_like(image))
    return image


def elliptic_blur(image: Picture, sigmas: Float[Array, "2"], angle: Scalar, radius: int) -> Picture:
    """Blur by a Gaussian of standard deviations `sigmas` along two axes, the first turned by `angle` radians from the
    columns' direction towards the rows' [Zhang21, sec. 3.1]; borders and `radius` as in `gaussian_blur`.

    By FFT, because one kernel an example makes convolutions slow.
    """
    height, width, _ = image.shape
    distance = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    y, x = distance[:, None], distance[None]
    along, across = jnp.cos(angle) * x + jnp.sin(angle) * y, jnp.cos(angle) * y - jnp.sin(angle) * x
    sigmas = jnp.maximum(sigmas, MIN_SIGMA)
    kernel = jnp.exp(-((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2) / 2)
    padded = jnp.pad(image.astype(jnp.float32), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    size = padded.shape[:2]
    transfer = jnp.fft.rfft2(kernel / kernel.sum(), size)[..., None]
    blurred = jnp.fft.irfft2(transfer * jnp.fft.rfft2(padded, axes=(0, 1)), size, axes=(0, 1))
    return blurred[2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width].astype(image.dtype)


def _box(x):
    return ((x >= -0.5) & (x < 0.5)).astype(jnp.float32)


def _linear(x):
    return jnp.maximum(1 - jnp.abs(x), 0)


def _cubic(x):
    x = jnp.abs(x)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


KERNELS = (_box, _linear, _cubic)
"""What resizing weighs pixels with: box (means going down, nearest going up), linear, and cubic with a = -1/2."""


def resize_through(image: Picture, size: Int[Array, "2"], down: Index, up: Index) -> Picture:
    """To the traced `size` (rows, columns), no larger than the picture, and back to its own; `down` and `up` are
    indices of KERNELS, going down antialiased.

    As each direction is a matrix of static shape, sizes need not be compiled one by one.
    """
    return _multiply(_there_and_back(image.shape, size, down, up), image)


def _there_and_back(shape: tuple[int, ...], size: Int[Array, "2"], down: Index, up: Index) -> tuple[Array, Array]:
    matrices = (
        (_resize_matrix(small, full, full, up), _resize_matrix(full, small, full, down))
        for full, small in zip(shape[:2], size, strict=True)
    )
    rows, columns = (jnp.matmul(back, there, precision=jax.lax.Precision.HIGHEST) for back, there in matrices)
    return rows, columns


def _multiply(matrices: tuple[Array, Array], image: Picture) -> Picture:
    rows, columns = (matrix.astype(image.dtype) for matrix in matrices)
    image = jnp.einsum("ij,jwc->iwc", rows, image, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("ij,hjc->hic", columns, image, precision=jax.lax.Precision.HIGHEST)


def _resize_matrix(size_in: Index, size_out: Index, full: int, kernel: Index) -> Float[Array, "full full"]:
    """Rows 0 .. size_out - 1 weigh the columns 0 .. size_in - 1; the rest is 0."""
    row, column = jnp.arange(full)[:, None], jnp.arange(full)[None]
    # between centres, in units of the coarser grid; whole numbers up to the division, so that ties are ties
    distance = ((2 * row + 1) * size_in - (2 * column + 1) * size_out) / (2 * jnp.maximum(size_in, size_out))
    weights = jax.lax.switch(kernel, KERNELS, distance) * (column < size_in) * (row < size_out)
    return weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-6)


def noise_augment(schedule: Schedule, image: Picture, key: PRNGKey, level: Time) -> Picture:
    """The picture with the noise of time `level` in [0, 1], 0 for none [Ho22b]; an upsampler conditions on it."""
    alpha, sigma = schedule(level)
    return alpha * image + sigma * jax.random.normal(key, image.shape, image.dtype)


def blurred(
    image: Picture,
    key: PRNGKey,
    *,
    probability: Scalar = 0.5,
    sigma: tuple[Scalar, Scalar] = (0.6, 0.6),
    radius: int = 1,
) -> Picture:
    """With that probability, a Gaussian blur of a sigma uniform in the range: how the first upsampler of
    [Ramesh22, sec. 2.1] is trained; the other pictures stay as they are."""
    whether_key, sigma_key = jax.random.split(key)
    drawn = jax.random.uniform(sigma_key, minval=sigma[0], maxval=sigma[1])
    return gaussian_blur(image, jnp.where(jax.random.bernoulli(whether_key, probability), drawn, 0), radius)


def bsr(image: Picture, key: PRNGKey, severity: Severity = MODERATE, *, radius: int = 5) -> Picture:
    """Blur, resizing, noise and JPEG in an order drawn by the key [Zhang21, sec. 3]: how the second upsampler of
    [Ramesh22, sec. 2.1] is trained.

    The size stays, the range is clipped to [-1, 1]. `radius` is that of the blur's kernel in pixels.
    """
    order_key, blur_key, resize_key, noise_key, quality_key = jax.random.split(key, 5)
    best = jnp.maximum(severity.quality, MAX_QUALITY)
    quality = jax.random.uniform(quality_key, minval=severity.quality, maxval=best)
    steps = (
        _random_blur(blur_key, severity.sigma, radius),
        _random_resize(resize_key, severity.scale, image.shape),
        _random_noise(noise_key, severity.noise, image),
        lambda image: jpeg(image, quality),
    )
    return in_random_order(steps, image, order_key)


def in_random_order(steps: Sequence[Step], image: Picture, key: PRNGKey) -> Picture:
    """Every step once, in an order drawn by the key; after each the picture is clipped to [-1, 1].

    Mapped by `jax.vmap`, examples differ in their order, so each place in it costs all the steps.
    """
    order = jax.random.permutation(key, len(steps))
    return jax.lax.fori_loop(
        0, len(steps), lambda i, image: jnp.clip(jax.lax.switch(order[i], steps, image), -1, 1), image
    )


def _random_blur(key: PRNGKey, max_sigma: Scalar, radius: int) -> Step:
    """Half of them round, the others longer than wide, at any angle."""
    sigma_key, round_key, short_key, angle_key = jax.random.split(key, 4)
    long = jax.random.uniform(sigma_key, maxval=max_sigma)
    short = jax.random.uniform(short_key, minval=jnp.minimum(long, NARROWEST), maxval=long)
    short = jnp.where(jax.random.bernoulli(round_key), long, short)
    angle = jax.random.uniform(angle_key, maxval=jnp.pi)
    return lambda image: elliptic_blur(image, jnp.stack([long, short]), angle, radius)


def _random_resize(key: PRNGKey, min_scale: Scalar, shape: tuple[int, ...]) -> Step:
    """To a share of both sides and back, with kernels of any kind."""
    scale_key, down_key, up_key = jax.random.split(key, 3)
    scale = jax.random.uniform(scale_key, minval=min_scale, maxval=1.0)
    size = jnp.maximum(jnp.round(scale * jnp.array(shape[:2])), 1).astype(jnp.int32)
    down, up = (jax.random.randint(kind_key, (), 0, len(KERNELS)) for kind_key in (down_key, up_key))
    matrices = _there_and_back(shape, size, down, up)
    return lambda image: _multiply(matrices, image)


def _random_noise(key: PRNGKey, max_std: Scalar, like: Picture) -> Step:
    """Half of it grey, the other half in colour."""
    std_key, grey_key, noise_key, colour_key = jax.random.split(key, 4)
    colour = jax.random.normal(colour_key, like.shape, like.dtype)
    grey = jnp.broadcast_to(jax.random.normal(noise_key, (*like.shape[:2], 1), like.dtype), like.shape)
    noise = jnp.where(jax.random.bernoulli(grey_key), grey, colour)
    noise *= jax.random.uniform(std_key, dtype=like.dtype, maxval=max_std)
    return lambda image: image + noise
