"""The Fréchet distance between two Gaussians, which on Inception features is FID [Heusel17]."""

import logging

import numpy as np
from jaxtyping import Float

from flaxgen.metrics.moments import Moments, covariance

logger = logging.getLogger(__name__)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the covariances A and B [Heusel17, eq. 6], in the squared
    units of the features; never negative but for rounding.

    Where a set has no more pictures than features its covariance is singular: that needs no special care here, but the
    distance is then biased upwards a lot, and a warning is logged.

    Raises:
        ValueError: if the widths differ, or a set has fewer than 2 features.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"features of width {len(a.mean)} and {len(b.mean)} cannot be compared")
    fewest, width = min(a.count, b.count), len(a.mean)
    first, second = covariance(a), covariance(b)
    if fewest <= width:
        logger.warning("%d pictures for %d features: the covariance is singular and FID much too high", fewest, width)
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * trace_of_root(first, second))


def trace_of_root(a: Float[np.ndarray, "D D"], b: Float[np.ndarray, "D D"]) -> float:
    """tr((A B)^(1/2)) of two symmetric matrices without negative eigenvalues, singular ones included.

    It is the sum of the singular values of F^T G where A = F F^T and B = G G^T. Both factors have as many columns as
    the matrices have rank, so no root of rounding noise is taken; an epsilon on the diagonal would change the result.
    """
    product = factor(a).T @ factor(b)
    gram = product @ product.T if product.shape[0] <= product.shape[1] else product.T @ product
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0)).sum())


def factor(matrix: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D rank"]:
    """F of full column rank with F F^T = matrix, to rounding."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > values[-1] * len(values) * np.finfo(values.dtype).eps
    return vectors[:, kept] * np.sqrt(values[kept])[None]
