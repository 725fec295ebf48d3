"""Models that were distilled to few steps: how they are asked, and what is refused."""

import compilations
import numpy as np
import pytest
import random_weights
from saving import write_model
from test_latent import CAPTIONS, NET, compose, config_of, toy, whole  # noqa: F401

import flaxgen
from flaxgen.zoo import latent
from flaxgen.zoo.latent.config import with_solver


def test_a_net_that_imitates_guidance_is_told_its_scale_and_compiles_nothing(toy, tmp_path):  # noqa: F811
    config = config_of(toy, net=NET.clone(guidance_dim=6), sampling=with_solver(config_of().sampling, "lcm"))
    params = random_weights.draw_like(latent.FAMILY.abstract_params(config))
    write_model(tmp_path / "net", config, params, 1, {})
    assert compose(tmp_path / "whole", toy, denoiser=tmp_path / "net") == 0
    model = flaxgen.load(tmp_path / "whole")
    drawn = [model.draw(CAPTIONS, num=1, guidance=8.0).images]
    with compilations.counted() as seen:
        drawn += [model.draw(CAPTIONS, num=1, guidance=scale).images for scale in (1.0, 3.0)]
    assert seen == []
    assert len({images.tobytes() for images in drawn}) == 3
    np.testing.assert_array_equal(model.draw(CAPTIONS, num=1, guidance=0.0).images, drawn[1])
    with pytest.raises(ValueError, match="a net that imitates guidance is imported"):
        latent.FAMILY.prepare(config, {})


def test_any_model_draws_as_consistency_models_do(whole):  # noqa: F811
    """Such as one with a LoRA that distilled it."""
    first = whole.draw(CAPTIONS, num=1, sampler="lcm", guidance=0, steps=4).images
    with compilations.counted() as seen:
        second = whole.draw(CAPTIONS, num=1, sampler="lcm", guidance=1, steps=4, seed=1).images
    assert seen == []
    assert (first != second).any()
