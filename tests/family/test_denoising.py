"""What an objective takes, and that a run refuses the rest while a model of an older run is loaded."""

import dataclasses

import pytest
import unet_toy

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.zoo.diffusion import FAMILY, Config

NET = unet_toy.unet(**unet_toy.GREY)
CONFIG = Config(seed=0, steps=1, batch_size=4, data=Data(source="digits", image_size=8, channels=1), net=NET)


@pytest.mark.parametrize("loss", ["hybrid", "variational"])
@pytest.mark.parametrize(
    ("field", "value"), [("weight", "min_snr"), ("times", "uniform"), ("times", "log_normal")], ids=str
)
def test_a_bound_has_its_own_weights_and_times(loss, field, value):
    net = dataclasses.replace(NET, learned_variance=loss == "hybrid")
    config = dataclasses.replace(CONFIG, net=net, objective=Objective(loss=loss, **{field: value}))
    assert FAMILY.decode(FAMILY.encode(config)) == config
    with pytest.raises(ValueError, match=rf"objective\.{field}={value} with objective\.loss={loss}: .* set ") as caught:
        FAMILY.training(config)
    assert "\n" not in str(caught.value)


def test_a_square_error_takes_any():
    objective = Objective(weight="min_snr", times="logit_normal")
    assert FAMILY.training(dataclasses.replace(CONFIG, objective=objective))
