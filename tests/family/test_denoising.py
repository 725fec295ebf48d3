"""What an objective takes, and that a run refuses the rest while a model of an older run is loaded."""

import dataclasses

import pytest
import unet_toy

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.zoo.diffusion import FAMILY, Config

NET = unet_toy.unet(**unet_toy.GREY)
FOURIER = dataclasses.replace(NET, time_embedding="fourier")
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


@pytest.mark.parametrize(
    ("process", "named"),
    [
        (Process(), r"process\.timesteps=1000 tells it indices from 0 on"),
        (Process(schedule="edm", timesteps=0, prediction="edm"), r"the prediction edm tells it log\(sigma\) / 4"),
    ],
    ids=["table", "edm"],
)
def test_a_logarithm_of_the_time_needs_a_time_above_zero(process, named):
    objective = Objective(times="table" if process.timesteps else "uniform")
    with pytest.raises(ValueError, match=rf"net\.time_embedding=fourier .*{named}.*: set ") as caught:
        dataclasses.replace(CONFIG, net=FOURIER, process=process, objective=objective)
    assert "\n" not in str(caught.value)


def test_fourier_goes_with_continuous_time():
    objective = Objective(times="uniform")
    assert dataclasses.replace(CONFIG, net=FOURIER, process=Process(timesteps=0), objective=objective)


@pytest.mark.parametrize("timesteps", [-1, 10**12])
def test_a_table_has_a_length_that_fits(timesteps):
    with pytest.raises(ValueError, match=f"timesteps={timesteps}: expected a table of 1 to 1000000, or 0"):
        Process(timesteps=timesteps)


def test_a_square_error_takes_any():
    objective = Objective(weight="min_snr", times="logit_normal")
    assert FAMILY.training(dataclasses.replace(CONFIG, objective=objective))
