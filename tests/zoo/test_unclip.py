"""The verbs of an unCLIP: what they keep, what they depend on, and what never compiles again.

Most are looked at without the upsamplers, whose noise would hide what the decoder does.
"""

import dataclasses
import json
import shutil

import compilations
import numpy as np
import pytest
import unclip_toy

from flaxgen import parallel, verbs
from flaxgen.data import open_source
from flaxgen.zoo import unclip
from flaxgen.zoo.unclip.drawing import Drawing, begin
from flaxgen.zoo.unclip.family import BlendUnclip, DrawUnclip, EditUnclip, InpaintUnclip, VaryUnclip

CAPTION, OTHER = "a red circle", "a small blue square above a green triangle"
ONE_LEVEL = 1
"""Of 255: what rounding may make of equal pictures."""


@pytest.fixture(scope="module")
def model(toy):
    return verbs.load(toy.model)


def without(model, *names):
    """The model less those parts."""
    return dataclasses.replace(model, parts={name: part for name, part in model.parts.items() if name not in names})


def base_of(model):
    """The model without its upsamplers."""
    return without(model, "upsampler_1", "upsampler_2")


@pytest.fixture(scope="module")
def base(model):
    return base_of(model)


@pytest.fixture(scope="module")
def images():
    """Two scenes at the size of what the whole model draws."""
    source = open_source(dataclasses.replace(unclip_toy.DATA, image_size=64))
    return source[0]["image"], source[1]["image"]


def apart(a, b):
    """The largest difference of two pictures, in levels of 255."""
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).max()


def edit(model, image, caption_from, caption_to, **settings):
    """An edit from one caption to another."""
    return model.edit(image, caption_from=caption_from, caption_to=caption_to, **settings)


def shrunk(image):
    """64 px to 16, by means."""
    return image.reshape(16, 4, 16, 4, 3).mean((1, 3))


def test_sizes_and_the_order_of_captions(model, base):
    """`num` pictures of each caption, the first caption's first; a picture follows its caption and its number."""
    assert (model.image_size, base.image_size) == (64, 16)
    both = base.draw([CAPTION, OTHER], seed=0, num=2)
    assert (both.arrays.shape, both.arrays.dtype) == ((4, 16, 16, 3), np.uint8)
    assert apart(both[:2], base.draw([CAPTION], seed=0, num=4)[:2]) <= ONE_LEVEL
    assert apart(both[2:], base.draw([OTHER], seed=0, num=4)[2:]) <= ONE_LEVEL
    assert apart(base.draw([CAPTION], seed=0, num=3), base.draw([CAPTION], seed=0, num=4)[:3]) <= ONE_LEVEL
    assert apart(both[0], both[1]) > ONE_LEVEL
    assert apart(base.draw([CAPTION, OTHER], seed=1, num=2), both) > ONE_LEVEL


def test_what_the_decoder_is_given(base):
    drawn = {
        through: base.draw([CAPTION], seed=0, num=4, through=through, guidance=40.0)
        for through in ("diffusion", "autoregressive", "text", "nothing")
    }
    for name, picture in drawn.items():
        assert all(apart(picture, other) > ONE_LEVEL for key, other in drawn.items() if key != name)


def test_upsamplers_enlarge_what_the_decoder_drew(model, base):
    large, small = model.draw([CAPTION], seed=0, num=4), base.draw([CAPTION], seed=0, num=4)
    assert large.arrays.shape == (4, 64, 64, 3)
    drawing = begin(model, 0, lambda stage: None)
    assert apart(large, drawing.enlarge(small.arrays.astype(np.float32) / 127.5 - 1)) <= 8
    assert apart(large[:3], model.draw([CAPTION], seed=0, num=3)) <= ONE_LEVEL


def best(pictures, scores):
    """Of every two pictures the one with the higher score."""
    return np.stack([pictures[2 * i + scores[2 * i : 2 * i + 2].argmax()] for i in range(len(scores) // 2)])


def test_candidates_are_told_apart_by_clip(base, images):
    """Of two the picture that is nearer to its caption, or to what it is a variation of."""
    clip = base.parts["clip"]
    many = base.draw([CAPTION, OTHER], seed=0, num=4).images
    chosen = base.draw([CAPTION, OTHER], seed=0, num=2, candidates=2)
    scores = clip.similarity(many, [CAPTION, OTHER])[np.arange(8), [0, 0, 0, 0, 1, 1, 1, 1]]
    assert apart(chosen, best(many, scores)) <= ONE_LEVEL
    assert len({tuple(pair.argsort()) for pair in scores.reshape(-1, 2)}) == 2  # else it could be always the first
    picture = shrunk(images[0]).astype(np.uint8)
    source = clip.encode_image(picture[None])
    varied = base.vary(picture, seed=0, num=4).images
    chosen = base.vary(picture, seed=0, num=2, candidates=2)
    assert apart(chosen, best(varied, (clip.encode_image(varied) * source).sum(-1))) <= ONE_LEVEL


def test_candidates_of_verbs_that_begin_with_the_noise_of_a_picture(base, images):
    """There are none: from a picture's own noise all are alike."""
    for verb in (
        lambda **settings: base.blend(*images, seed=0, num=2, **settings),
        lambda **settings: edit(base, images[0], CAPTION, OTHER, seed=0, num=2, **settings),
    ):
        with pytest.raises(TypeError, match="unexpected keyword argument 'candidates'"):
            verb(candidates=2)


def test_an_empty_caption_is_one_too(base):
    assert base.draw([""], seed=0, num=4).arrays.shape == (4, 16, 16, 3)
    with pytest.raises(ValueError, match=r"captions=\(\): expected one or more"):
        base.draw([], seed=0, num=4)


def test_variations_from_fresh_noise(base, images):
    a, b = images
    varied = base.vary(a, seed=0, num=4)
    assert apart(varied[0], varied[1]) > ONE_LEVEL
    assert apart(varied[:3], base.vary(a, seed=0, num=3)) <= ONE_LEVEL
    assert apart(base.vary(a, seed=0, num=4, guidance=40.0), base.vary(b, seed=0, num=4, guidance=40.0)) > ONE_LEVEL


def test_a_picture_comes_back_from_its_noise(base, images):
    """With eta 0 every variation is the picture itself, with eta 1 none is and no two are alike."""
    a, _ = images
    same = base.vary(a, seed=0, num=4, invert=True).images
    assert apart(same[0], same[3]) <= ONE_LEVEL
    assert np.abs(same[0] - shrunk(a)).mean() < 4
    varied = base.vary(a, seed=0, num=4, invert=True, eta=1.0).images
    assert np.abs(varied[0] - shrunk(a)).mean() > 3 * np.abs(same[0] - shrunk(a)).mean()
    assert apart(varied[0], varied[1]) > 10


def test_guidance_grows_with_what_eta_leaves_open(base, images):
    """The toy's guidance is 3: with eta 0.5 the half of what it adds to 1."""

    def varied(**settings):
        return base.vary(images[0], seed=0, num=4, invert=True, **settings)

    half = varied(eta=0.5)
    assert apart(half, varied(eta=0.5, guidance=2.0)) <= ONE_LEVEL
    assert apart(half, varied(eta=0.5, guidance=3.0)) > ONE_LEVEL
    assert apart(varied(), varied(guidance=1.0)) <= ONE_LEVEL


def test_a_blend_goes_from_one_picture_to_the_other(base, images):
    a, b = images
    blended = base.blend(a, b, seed=0, num=3)
    assert len(blended) == 3
    ends = [base.vary(image, seed=0, num=3, invert=True)[0] for image in images]
    assert apart(blended[0], ends[0]) <= 2 * ONE_LEVEL
    assert apart(blended[2], ends[1]) <= 2 * ONE_LEVEL
    assert all(apart(blended[1], end) > 10 for end in ends)
    assert apart(base.blend(a, b, seed=0, num=1)[0], blended[1]) <= 2 * ONE_LEVEL


def test_an_edit_goes_from_the_picture_towards_the_caption(base, images):
    a, _ = images
    edited = edit(base, a, CAPTION, OTHER, seed=0, num=3, strength=1.0)
    assert apart(edited[0], base.vary(a, seed=0, num=3, invert=True)[0]) <= 2 * ONE_LEVEL
    assert apart(edited[0], edited[1]) > ONE_LEVEL
    assert apart(edited[1], edited[2]) > ONE_LEVEL
    assert apart(edit(base, a, CAPTION, OTHER, seed=0, num=3, strength=0.5)[2], edited[1]) <= 2 * ONE_LEVEL
    assert apart(edit(base, a, CAPTION, CAPTION, seed=0, num=3, strength=1.0)[2], edited[0]) <= 2 * ONE_LEVEL
    assert apart(edit(base, a, CAPTION, OTHER, seed=0, num=1, strength=1.0)[0], edited[2]) <= 2 * ONE_LEVEL


def test_inpainting_changes_no_pixel_that_is_not_marked(model, images):
    a, _ = images
    mask = np.zeros((64, 64), bool)
    mask[10:37, 5:30] = True  # whose edges are not those of the decoder's pixels
    drawn = model.inpaint(a, mask, CAPTION, seed=0, num=4).images
    assert drawn.shape == (4, 64, 64, 3)
    assert np.count_nonzero(drawn[:, ~mask] != a[None][:, ~mask]) == 0
    chosen = model.inpaint(a, mask, CAPTION, seed=0, num=2, candidates=2).images
    assert np.count_nonzero(chosen[:, ~mask] != a[None][:, ~mask]) == 0
    for picture in drawn:
        assert np.mean(picture[mask] != a[mask]) > 0.5
    assert apart(drawn[0], drawn[1]) > ONE_LEVEL


def test_outpainting_keeps_the_picture_and_draws_around_it(model, images):
    drawn = model.outpaint(images[0], CAPTION, right=20, top=6, feather=3, seed=0, num=2).images
    assert drawn.shape == (2, 70, 84, 3)
    assert (drawn[:, 9:, :61] == images[0][3:, :61]).all()
    assert np.mean(drawn[0, :, 64:] != drawn[1, :, 64:]) > 0.5


def test_inpainting_keeps_a_picture_of_any_shape(model, images):
    """A window around the mask is drawn, or the middle square; all else stays, at the picture's own size."""
    wide = np.concatenate([images[0], images[1]], axis=1)
    mask = np.zeros((64, 128), bool)
    mask[10:20, 60:70] = True
    for whole in (False, True):
        drawn = model.inpaint(wide, mask, CAPTION, whole=whole, seed=0, num=4).images
        assert drawn.shape == (4, *wide.shape)
        assert np.count_nonzero(drawn[:, ~mask] != wide[None][:, ~mask]) == 0
        assert np.mean(drawn[:, mask] != wide[mask]) > 0.5
    near = model.inpaint(wide, mask, CAPTION, seed=0, num=4).images
    assert apart(near[0], drawn[0]) > ONE_LEVEL
    mask[:] = False
    mask[:, :20] = True
    with pytest.raises(ValueError, match="the mask marks nothing in the picture's middle square"):
        model.inpaint(wide, mask, CAPTION, whole=True, seed=0)


def test_nothing_that_is_a_number_compiles_again(model, images):
    a, b = images
    mask = np.zeros((64, 64), bool)
    mask[10:37, 5:30] = True

    def all_verbs(seed, guidance, caption, strength, eta):
        model.draw([caption], seed=seed, num=4, guidance=guidance, prior_guidance=guidance + 1)
        model.vary(a, seed=seed, num=4, guidance=guidance)
        model.vary(a, seed=seed, num=4, invert=True, eta=eta)
        model.blend(a, b, seed=seed, num=4)
        edit(model, a, caption, OTHER, seed=seed, num=4, strength=strength)
        model.inpaint(a, mask, caption, seed=seed, num=4, guidance=guidance, prior_guidance=guidance + 1)

    all_verbs(0, 2.0, CAPTION, 0.5, 0.0)
    with compilations.counted() as seen:
        all_verbs(7, 5.5, "something much longer, and with a comma", 0.9, 0.25)
    assert seen == []


def test_progress_names_every_stage(model, images):
    a, b = images
    mask = np.ones((64, 64), bool)
    for request in (
        DrawUnclip(captions=(CAPTION,), num=4),
        VaryUnclip(image=a, num=4, invert=True),
        BlendUnclip(a=a, b=b, num=4),
        EditUnclip(image=a, caption_from=CAPTION, caption_to=OTHER, num=4),
        InpaintUnclip(image=a, mask=mask, caption=CAPTION, num=4),
    ):
        stages = []
        model.perform(request, stages.append)
        assert len(stages) == model.handler(type(request)).stages(request)
        assert stages[-2:] == ["upsampler to 32 px", "upsampler to 64 px"]


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["pmap", "mesh"])
def test_many_devices_draw_the_same_pictures(model, toy, images, plan):
    a, b = images
    mask = np.zeros((64, 64), bool)
    mask[10:37, 5:30] = True
    many = verbs.load(toy.model, parallel.make_plan(plan))
    for verb in (
        lambda m: m.draw([CAPTION, OTHER], seed=0, num=2),
        lambda m: m.draw([CAPTION], seed=0, num=4, through="autoregressive"),
        lambda m: m.vary(a, seed=0, num=4),
        lambda m: m.vary(a, seed=0, num=4, invert=True, eta=0.5),
        lambda m: m.blend(a, b, seed=0, num=4),
        lambda m: edit(m, a, CAPTION, OTHER, seed=0, num=4),
        lambda m: m.inpaint(a, mask, CAPTION, seed=0, num=4),
    ):
        assert apart(verb(many), verb(model)) <= ONE_LEVEL


@pytest.mark.parametrize("change", [{"seed": -1}, {"seed": 2**32}, {"num": 0}])
def test_numbers_out_of_range(base, images, change):
    told = {"seed": 0, "num": 1, **change}
    ((name, value),) = change.items()
    for verb in (
        lambda: base.draw([CAPTION], **told),
        lambda: base.vary(images[0], **told),
        lambda: base.blend(*images, **told),
        lambda: edit(base, images[0], CAPTION, OTHER, **told),
        lambda: base.inpaint(images[0], np.ones((64, 64), bool), CAPTION, **told),
    ):
        with pytest.raises(ValueError, match=f"{name}={value}: expected"):
            verb()


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5, float("nan")])
def test_a_strength_out_of_range(base, images, strength):
    with pytest.raises(ValueError, match=f"strength={strength}: expected a number above 0, at most 1"):
        edit(base, images[0], CAPTION, OTHER, seed=0, num=1, strength=strength)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": float("nan")}, "guidance=nan: expected 0 or more"),
        ({"prior_guidance": float("inf")}, "guidance=inf: expected 0 or more"),
        ({"steps": 0}, "steps=0: expected 1 or more"),
        ({"steps": 17}, "steps=17 is more than"),
        ({"candidates": 0}, "candidates=0: expected 1 or more"),
    ],
)
def test_settings_out_of_range(base, settings, message):
    with pytest.raises(ValueError, match=message):
        base.draw([CAPTION], seed=0, num=4, **settings)


def test_too_many_steps_are_refused_before_any_stage_runs(base, images, monkeypatch):
    monkeypatch.setattr(Drawing, "text", lambda *_: pytest.fail("the caption was encoded"))
    mask = np.full(images[0].shape[:2], 255, np.uint8)
    for draw in (base.draw, lambda *args, **settings: base.inpaint(images[0], mask, *args, **settings)):
        with pytest.raises(ValueError, match="steps=17 is more than the schedule's 16 timesteps"):
            draw(CAPTION, seed=0, num=1, steps=17)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"invert": True, "eta": 2.0}, r"eta=2\.0: expected 0 to 1"),
        ({"eta": 0.5}, r"eta=0\.5 is for variations from inverted noise: give invert too"),
    ],
)
def test_eta_out_of_range_or_place(base, images, settings, message):
    with pytest.raises(ValueError, match=message):
        base.vary(images[0], seed=0, num=4, **settings)


def test_without_a_stage(base, images):
    lacking = {name: without(base, name) for name in unclip.FAMILY.parts}
    with pytest.raises(ValueError, match=r"lacks the part 'prior': vary, blend and edit still work, and draw through "
                       "autoregressive or text"):  # fmt: skip
        lacking["prior"].draw([CAPTION], seed=0, num=4)
    with pytest.raises(ValueError, match=r"lacks the part 'ar_prior': .* draw through diffusion or text"):
        lacking["ar_prior"].draw([CAPTION], seed=0, num=4, through="autoregressive")
    assert apart(lacking["prior"].vary(images[0], seed=0, num=4), base.vary(images[0], seed=0, num=4)) == 0
    for name in ("clip", "decoder"):
        for verb in (
            lambda m: m.draw([CAPTION], seed=0, num=4),
            lambda m: m.vary(images[0], seed=0, num=4),
            lambda m: m.blend(*images, seed=0, num=4),
            lambda m: edit(m, images[0], CAPTION, OTHER, seed=0, num=4),
            lambda m: m.inpaint(images[0], np.ones((64, 64), bool), CAPTION, seed=0),
        ):
            needed = "draw, vary, blend, edit, inpaint, outpaint all need"
            with pytest.raises(ValueError, match=f"lacks the part '{name}': {needed}"):
                verb(lacking[name])


@pytest.fixture
def copy(toy, tmp_path):
    shutil.copytree(toy.model, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_directory_without_an_upsampler_says_so(copy, capfd):
    shutil.rmtree(copy / "upsampler_1")
    model = verbs.load(copy)
    assert capfd.readouterr().err == (
        f"warning: {copy} lacks the part 'upsampler_1': pictures are drawn at the size before it\n"
    )
    assert model.image_size == 16


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (3, "stages=3: expected a folder for some of clip"),
        ({"critic": "critic"}, r"stages=\{'critic': 'critic'\}: expected"),
        ({"clip": "../clip"}, r"clip is in '\.\./clip': expected the name of a folder"),
        ({"clip": ".."}, r"clip is in '\.\.': expected the name of a folder"),
        ({"clip": 3}, "clip is in 3: expected the name of a folder"),
        ({"clip": "decoder"}, "is of type UnclipDecoder: expected a run or model directory of type Clip"),
        ({"prior": "ar_prior"}, "has the net ARPrior: expected DiffusionPrior"),
    ],
)
def test_an_index_that_is_wrong(copy, stages, message):
    index = copy / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "stages": stages}))
    with pytest.raises(ValueError, match=message):
        verbs.load(copy)


def test_a_stage_of_another_clip(copy, toy):
    shutil.rmtree(copy / "clip")
    unclip_toy.with_another_clip(toy, copy / "clip")
    with pytest.raises(ValueError, match=r"prior: this stage was trained with the CLIP \w+, this one is \w+"):
        verbs.load(copy)


def test_again_draws_the_sheet_and_each_picture_of_it_with_the_same_weights_alone(toy, tmp_path):
    model = verbs.load(toy.model)
    drawn = model.draw("a red circle", num=2, steps=2, seed=3)
    path = drawn.save(tmp_path / "out.png")
    np.testing.assert_array_equal(model.again(path).images, drawn.images)
    np.testing.assert_array_equal(model.again(tmp_path / "out" / "001.png").images, drawn.images[1:])
    other = unclip_toy.with_another_clip(toy, tmp_path / "other")
    with pytest.raises(ValueError, match="was drawn by the weights"):
        verbs.load(other).again(path)
