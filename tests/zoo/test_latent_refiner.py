"""A refiner that ends what the net over latents begins."""

import dataclasses

import compilations
import dalle_toy
import numpy as np
import pytest
import random_weights
from saving import write_model
from test_latent import CAPTIONS, NET, SAMPLING, SIZE, compose, config_of, toy  # noqa: F401

import flaxgen
from flaxgen.cli import main
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.zoo import latent
from flaxgen.zoo.latent.config import walked_times

PICTURE = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
MASK = np.zeros((SIZE, SIZE, 1), np.uint8)
MASK[3:12, 4:15] = 255


@pytest.fixture(scope="module")
def models(toy, tmp_path_factory):  # noqa: F811
    """The model alone, with itself as its refiner, and with another one."""
    root = tmp_path_factory.mktemp("refiner")
    dalle_toy.write_random(root / "other", config_of(toy, seed=1), strength=1.0)
    for name, net in (("itself", toy / "net"), ("another", root / "other")):
        assert compose(root / name, toy, refiner=net) == 0
    return [flaxgen.load(place) for place in (toy / "whole", root / "itself", root / "another")]


@pytest.mark.parametrize("since", [0.0, 0.3, 0.8, 0.99, 1.0])
def test_a_net_that_goes_on_by_itself_draws_as_if_it_had_not_stopped(since, models):
    plain, itself, _ = models
    drawn = [
        model.draw(CAPTIONS, num=1, **more).images for model, more in ((plain, {}), (itself, {"refine_from": since}))
    ]
    np.testing.assert_allclose(drawn[0].astype(int), drawn[1], atol=1)
    varied = [
        model.vary(PICTURE, num=1, strength=0.75, **more).images
        for model, more in ((plain, {}), (itself, {"refine_from": since}))
    ]
    np.testing.assert_allclose(varied[0].astype(int), varied[1], atol=1)


def test_another_net_changes_the_end_and_numbers_compile_nothing(models):
    plain, _, another = models
    base = plain.draw(CAPTIONS, num=1).images
    np.testing.assert_array_equal(another.draw(CAPTIONS, num=1, refine_from=1).images, base)
    drawn = [another.draw(CAPTIONS, num=1, refine_from=since, steps=10).images for since in (0.8, 0.5)]
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(another.draw(CAPTIONS, num=1, steps=10).images, drawn[0])
    with compilations.counted() as seen:
        another.draw(CAPTIONS, num=1, refine_from=0.6, steps=13, guidance=3.0, seed=5, negative="red")
    assert seen == []


def test_what_is_kept_stays_while_it_is_refined(models):
    drawn = models[2].inpaint(PICTURE, MASK, caption="a red circle", num=1, refine_from=0.5).images
    free = np.broadcast_to(MASK > 127, PICTURE.shape)
    assert (drawn[:, ~free] == PICTURE[~free]).all()


def test_the_steps_are_those_that_begin_in_a_span_of_time():
    config, sampling = config_of(), dataclasses.replace(SAMPLING, steps=10)
    whole = walked_times(config, sampling)
    first, last = (walked_times(config, sampling, 1.0, span) for span in ((0.0, 0.8), (0.8, 1.0)))
    np.testing.assert_array_equal(np.concatenate([first, last[1:]]), whole)
    assert first[-2] * 1000 - 1 >= 200 > first[-1] * 1000 - 1
    process, objective = Process(schedule="cosine", timesteps=0), Objective(times="uniform")
    continuous = dataclasses.replace(
        config, process=process, objective=objective, net=NET.clone(time_embedding="sinusoidal")
    )
    trailing = dataclasses.replace(sampling, grid="trailing", offset=0)
    np.testing.assert_allclose(walked_times(continuous, trailing, 1.0, (0.8, 1.0)), [0.2, 0.1, 0], atol=1e-6)


OTHERS = {
    "channels": ({"net": NET.clone(in_channels=7)}, "refiner reads 7 channels"),
    "noise": ({"process": Process()}, "expected the same noise"),
    "tokens": ({"net": NET.clone(token_dim=8)}, "states 8 wide, and those of the last text encoder are 16 wide"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_refiner_of_another_model_is_not_composed(name, toy, tmp_path, capsys):  # noqa: F811
    changes, said = OTHERS[name]
    config = config_of(toy, **changes)
    params = random_weights.draw_like(latent.FAMILY.abstract_params(config))
    write_model(tmp_path / "other", config, params, 1, {})
    assert compose(tmp_path / "whole", toy, refiner=tmp_path / "other") == 2
    assert said in capsys.readouterr().err


def test_without_a_refiner_nothing_is_refined(toy, tmp_path, capsys):  # noqa: F811
    given = ["draw", "a", "--model", str(toy / "whole"), "--out", str(tmp_path / "out.png"), "--refine-from", "0.8"]
    assert main(given) == 2
    assert "lacks the part 'refiner', which refine_from is for" in capsys.readouterr().err
