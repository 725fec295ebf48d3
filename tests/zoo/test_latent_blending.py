"""Pictures between two by a model of latent diffusion."""

import compilations
import numpy as np
import pytest
from test_latent import SIZE, toy, whole  # noqa: F401

from flaxgen.family.process import make_schedule
from flaxgen.zoo.latent import blending
from flaxgen.zoo.latent.model import Asked
from flaxgen.zoo.latent.requests import BlendLatent

A, B = np.random.default_rng(3).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def test_both_ends_are_those_of_a_picture_alone(whole):  # noqa: F811
    drawn = whole.blend(A, B, num=3, caption="a red circle", caption_to="a small blue square").images
    for i, picture, caption in ((0, A, "a red circle"), (2, B, "a small blue square")):
        alone = whole.blend(picture, picture, num=3, caption=caption).images
        assert np.abs(alone[i].astype(int) - drawn[i]).max() <= 1
        assert np.abs(alone[0].astype(int) - alone[2]).max() <= 1
    assert (drawn[1] != drawn[0]).any()
    assert (drawn[1] != drawn[2]).any()


def test_one_is_the_middle_and_numbers_and_captions_compile_nothing(whole):  # noqa: F811
    three = whole.blend(A, B, num=3, strength=0.5).images
    with compilations.counted() as seen:
        moved = whole.blend(B, A, num=3, strength=0.75, caption="a red circle", steps=3, guidance=1.5).images
    assert seen == []
    one = whole.blend(A, B, num=1, strength=0.5).images
    assert np.abs(one[0].astype(int) - three[1]).max() <= 1
    assert moved.shape == three.shape


def test_it_starts_on_the_great_circle_between_two_latents_of_the_same_noise(whole, monkeypatch):  # noqa: F811
    """The middle of two vectors of norms r and s is their bisector, of norm (r + s) / 2."""
    seen = []

    def draw(parts, request, asked, numbers, progress, start):
        seen.append(start)
        return np.zeros((len(numbers), SIZE, SIZE, 3), np.uint8)

    monkeypatch.setattr(blending, "draw_asked", draw)
    whole.blend(A, B, num=3, strength=0.5, seed=7)
    whole.blend(A, A, num=1, strength=0.5, seed=7)
    (first, middle, last), (same,) = (start.known["x_T"].reshape(len(start.known["x_T"]), -1) for start in seen)
    norms = [np.linalg.norm(x) for x in (first, last)]
    bisector = first / norms[0] + last / norms[1]
    expected = bisector / np.linalg.norm(bisector) * sum(norms) / 2
    np.testing.assert_allclose(middle, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(same, first, rtol=1e-5, atol=1e-5)
    latents = whole.whole.encode(np.stack([A, B])).reshape(2, -1)
    config = whole.whole.config
    time = blending.walked_times(config, config.sampling, 0.5)[0]
    alpha, _ = make_schedule(config.process)(float(time))
    np.testing.assert_allclose(first - last, float(alpha) * (latents[0] - latents[1]), rtol=1e-4, atol=1e-4)
    assert [start.strength for start in seen] == [0.5, 0.5]


def test_conditions_lie_on_a_line_and_masks_join():
    tokens, masks = np.array([[1.0, 2.0], [3.0, 6.0]], np.float16), np.array([[1, 0, 0], [1, 1, 0]], bool)
    fields = {"tokens": tokens, "token_mask": masks}
    mixed = blending.mixed(Asked(fields, fields), np.array([0, 0.25, 1], np.float32))
    for found in (mixed.condition, mixed.null):
        np.testing.assert_array_equal(found["tokens"], [[1, 2], [1.5, 3], [3, 6]])
        np.testing.assert_array_equal(found["token_mask"], [[1, 0, 0], [1, 1, 0], [1, 1, 0]])
        assert found["tokens"].dtype == np.float16


@pytest.mark.parametrize(("said", "line"), [
    ({"strength": 0.0}, "strength=0.0: expected a number above 0"),
    ({"num": 0}, "num=0: expected 1 or more"),
    ({"hint": A}, "lacks the part 'controlnet'"),
])  # fmt: skip
def test_what_cannot_be_blended_is_said(said, line, whole):  # noqa: F811
    with pytest.raises(ValueError, match=line):
        whole.blend(A, B, **said)


def test_the_second_caption_is_read_for_words_that_were_never_seen(whole):  # noqa: F811
    asked = BlendLatent(a=A, b=B, caption="a red circle", caption_to="a mauve circle")
    assert whole.unseen_words(asked) == ("mauve",)
