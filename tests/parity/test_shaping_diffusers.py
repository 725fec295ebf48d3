"""Rescaled guidance, dynamic thresholds and learned variances against diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.diffusion import guidance, schedules
from flaxgen.diffusion.posterior import log_variance, posterior
from flaxgen.types import Denoised

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.parity

X = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32) * 2
NULL = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_rescaled_guidance(rescale):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    def bind(condition):
        return lambda x, t: Denoised(condition["x0"])

    found = guidance.classifier_free(bind, {"x0": jnp.asarray(X)}, {"x0": jnp.asarray(NULL)}, 4.0, rescale)
    found = found(jnp.asarray(X), 0.5).x0
    guided = torch.tensor(NULL + 4 * (X - NULL))
    theirs = rescale_noise_cfg(guided, torch.tensor(X), guidance_rescale=rescale).numpy()
    np.testing.assert_allclose(found, theirs, atol=1e-5)


@pytest.mark.parametrize("percentile", [0.9, 0.995])
def test_dynamic_threshold(percentile):
    scheduler = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=1e9)
    theirs = scheduler._threshold_sample(torch.tensor(X)).numpy()
    found = guidance.dynamic_threshold(lambda x, t: Denoised(x), percentile)(jnp.asarray(X), 0.5).x0
    np.testing.assert_allclose(found, theirs, atol=1e-6)


@pytest.mark.parametrize("k", [2, 10, 500, 1000])
def test_learned_range_variance(k):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    variance = np.linspace(-1, 1, 5, dtype=np.float32)
    # theirs takes 1 - alpha_bar in float32, which leaves three to four digits at k=10
    theirs = scheduler._get_variance(k - 1, predicted_variance=torch.tensor(variance)).numpy()
    post = posterior(schedules.linear(1000), k / 1000, (k - 1) / 1000)
    np.testing.assert_allclose(log_variance(post, "learned", jnp.asarray((variance + 1) / 2)), theirs, atol=3e-4)
