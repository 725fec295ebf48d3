import numpy as np
import pytest

from flaxgen.metrics.clip_score import clip_scores


def test_angles():
    """Along, at 60 degrees, across, against; the lengths do not count."""
    image = np.array([[2.0, 0.0], [1.0, 0.0], [5.0, 0.0], [1.0, 0.0]], np.float32)
    text = np.array([[3.0, 0.0], [0.5, np.sqrt(0.75)], [0.0, 1.0], [-1.0, 0.1]], np.float32)
    np.testing.assert_allclose(clip_scores(image, text), [100, 50, 0, 0], atol=1e-4)
    np.testing.assert_allclose(clip_scores(image, text, 2.5), [2.5, 1.25, 0, 0], atol=1e-5)


def test_an_embedding_of_length_zero_scores_nothing():
    assert float(clip_scores(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))[0]) == 0


def test_the_widths_have_to_agree():
    with pytest.raises(TypeError):
        clip_scores(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))
