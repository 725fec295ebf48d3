"""Where ADA reads its pixels from: flips, quarter turns and whole shifts, and any affine map [Karras20b, app. B].

A transform is a 3x3 matrix on (x, y, 1), in pixels from the picture's centre, x to the right and y down. What is drawn
is its inverse, which takes a place in the result to where it is read: the inverse of first A, then B is A^-1 B^-1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from flaxgen.resample import downsample2d, upsample2d
from flaxgen.types import PRNGKey, Scalar

Matrix = Float[Array, "3 3"]
Picture = Float[Array, "S S C"]

MAX_SHIFT, SHIFT_STD = 0.125, 0.125
"""In shares of the side, of whole and of fractional shifts."""
SCALE_STD, STRETCH_STD = 0.2, 0.2
"""Of the logarithms to base 2."""

SYM6 = np.array(
    [
        *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
        *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
        *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
    ]
)
"""The low-pass filter of the wavelet of that name [Daubechies92, table 6.3]: it and its shifts by even numbers are
orthonormal, so twice as fine by it and back is the identity."""
KERNEL = (SYM6 / SYM6.sum()).astype(np.float32)
DELAY = float(SYM6 @ np.arange(len(SYM6)) / SYM6.sum()) - (len(SYM6) - 1) / 2
"""In fine pixels: how far right and down of its place the asymmetric filter puts a point, -0.4 of them."""
REACH = len(SYM6) // 4
"""In pixels: how far beyond the border the filter reads on the way back."""


def draw_blit(key: PRNGKey, probability: Scalar, side: int) -> Matrix:
    """Inverse of a flip, a quarter turn and a whole shift, each with that probability."""
    chance, share = jnp.split(jax.random.uniform(key, (7,)), [3])
    drawn = chance < probability
    flip = jnp.where(drawn[0] & (share[0] < 0.5), -1, 1)
    turns = jnp.where(drawn[1], jnp.floor(4 * share[1]), 0).astype(jnp.int32)
    shift = jnp.where(drawn[2], jnp.round(side * MAX_SHIFT * (2 * share[2:] - 1)), 0)
    return compose(scaling(flip, 1), quarter_turns(turns), translation(-shift))


def draw_affine(key: PRNGKey, probability: Scalar, side: int) -> tuple[Matrix, Bool[Array, ""]]:
    """Inverse of scaling, turning, stretching along any direction and shifting, each with that probability, and whether
    there is any of them.

    What turns is one angle before stretching and one after, either likely enough that there is one with `probability`.
    """
    chance_key, normal_key, angle_key = jax.random.split(key, 3)
    turning = 1 - jnp.sqrt(jnp.clip(1 - probability, 0, 1))
    likely = jnp.stack([jnp.asarray(p) for p in (probability, turning, probability, turning, probability)])
    drawn = jax.random.uniform(chance_key, (5,)) < likely
    normal = jax.random.normal(normal_key, (4,))
    angle = jax.random.uniform(angle_key, (2,), minval=-np.pi, maxval=np.pi)
    scale = jnp.where(drawn[0], jnp.exp2(SCALE_STD * normal[0]), 1)
    stretch = jnp.where(drawn[2], jnp.exp2(STRETCH_STD * normal[1]), 1)
    shift = jnp.where(drawn[4], side * SHIFT_STD * normal[2:], 0)
    inverse = compose(
        scaling(1 / scale, 1 / scale),
        rotation(jnp.where(drawn[1], angle[0], 0)),
        scaling(1 / stretch, stretch),
        rotation(jnp.where(drawn[3], angle[1], 0)),
        translation(-shift),
    )
    return inverse, jnp.any(drawn)


def compose(*matrices: Matrix) -> Matrix:
    """Their product, in full precision on every device."""
    return functools.reduce(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST), matrices)


def translation(shift: Float[Array, "2"]) -> Matrix:
    """By (x, y) pixels."""
    return jnp.eye(3).at[:2, 2].set(shift)


def scaling(x: Shaped[Array, ""] | int, y: Shaped[Array, ""] | int) -> Matrix:
    """By a factor along each axis."""
    return jnp.diag(jnp.stack([jnp.asarray(a, jnp.float32) for a in (x, y, 1)]))


def rotation(angle: Float[Array, ""]) -> Matrix:
    """By radians from x towards y."""
    return _turn(jnp.cos(angle), jnp.sin(angle))


def quarter_turns(turns: Int[Array, ""]) -> Matrix:
    """By so many right angles from x towards y, in whole numbers."""
    return _turn(jnp.array([1.0, 0.0, -1.0, 0.0])[turns], jnp.array([0.0, 1.0, 0.0, -1.0])[turns])


def _turn(cos: Float[Array, ""], sin: Float[Array, ""]) -> Matrix:
    return jnp.eye(3).at[:2, :2].set(jnp.array([[cos, -sin], [sin, cos]]))


def blit(image: Picture, inverse: Matrix) -> Picture:
    """Every pixel of the result is the nearest of the picture, mirrored at its borders about their pixels' centres: the
    pixels themselves, unchanged, where the matrix keeps centres on centres."""
    side = image.shape[0]
    rows, columns = (jnp.round(place).astype(jnp.int32) for place in _read_from(inverse, jnp.arange(side), side))
    return image.at[mirror(rows, side), mirror(columns, side)].get(mode="clip")


def resample(images: Float[Array, "B S S C"], inverses: Float[Array, "B 3 3"]) -> Float[Array, "B S S C"]:
    """Pictures under affine maps: made twice as fine by SYM6, read bilinearly, and made coarse again; the identity, but
    for rounding, where the matrix is.

    Borders are mirrored about their pixels' centres, as often as needed. Unlike in NVlabs' code, the margin does not
    depend on the batch, so neither does a picture; and the filter's delay does not move what is flipped or turned.
    """
    side, margin = images.shape[1], REACH + 1
    pad = margin + REACH + 1
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    fine = upsample2d(padded, KERNEL, up=2)
    fine_places = jnp.arange(-2 * REACH, 2 * (side + REACH), dtype=jnp.float32)

    def read(picture, inverse):
        places = _read_from(inverse, (fine_places - 0.5 - DELAY) / 2, side)
        # up to the margin, what the filter made of the mirrored picture; beyond, the mirror of what it made
        kept = (jnp.where(jnp.abs(2 * p - side + 1) > side - 1 + 2 * margin, mirror(p, side), p) for p in places)
        return bilinear(picture, *(2 * (p + pad) + 0.5 + DELAY for p in kept))

    moved = jax.vmap(read)(fine, inverses)
    return downsample2d(moved, KERNEL, down=2, padding=-2 * REACH, flip=True)


def _read_from(inverse: Matrix, places: Shaped[Array, " N"], side: int) -> tuple[Float[Array, "N N"], ...]:
    """Rows and columns that the results' pixels at `places` x `places` are read from, as numbers of pixels."""
    centre = (side - 1) / 2
    along = places - centre
    x, y = jnp.broadcast_arrays(along[None, :], along[:, None])
    columns, rows = (a * x + b * y + c + centre for a, b, c in (inverse[0], inverse[1]))
    return rows, columns


def mirror(place: Shaped[Array, "..."], side: int) -> Shaped[Array, "..."]:
    """The place in [0, side - 1] with the same pixel in a picture that is mirrored about its outermost centres."""
    period = 2 * (side - 1)
    place = jnp.mod(place, period)
    return jnp.minimum(place, period - place)


def bilinear(
    picture: Float[Array, "H W C"], rows: Float[Array, "h w"], columns: Float[Array, "h w"]
) -> Float[Array, "h w C"]:
    """Between the four pixels around each place; all places are inside."""
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    i, j = top.astype(jnp.int32), left.astype(jnp.int32)

    def at(i, j):
        return picture.at[i, j].get(mode="clip")

    above = (1 - right) * at(i, j) + right * at(i, j + 1)
    below = (1 - right) * at(i + 1, j) + right * at(i + 1, j + 1)
    return (1 - down) * above + down * below
