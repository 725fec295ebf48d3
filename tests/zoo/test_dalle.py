"""DALL-E by either net: it learns from data, draws what the whole pass says, keeps what is known, lets CLIP choose."""

import dataclasses
import functools
import json

import dalle_toy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dalle_toy import CODES, CONTEXT, NETS, SIDE, TOKENS
from PIL import Image

import flaxgen
from flaxgen import parallel, verbs
from flaxgen.cli import main
from flaxgen.data import Order, batch_at, open_source, to_pixels
from flaxgen.family.coded import NAMED, CodeDrawing
from flaxgen.zoo.dalle import FAMILY, TOKENIZER
from flaxgen.zoo.dalle.kinds import Example, kind_of
from flaxgen.zoo.dalle.model import make_draw

CAPTIONS = ("a red circle", "a small blue square")
COLD = CodeDrawing(temperature=0.0, batch=8)
by_net = pytest.mark.parametrize("name", NETS)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return dalle_toy.write_toy(tmp_path_factory.mktemp("dalle"))


def compose(target, toy, name="dalle", **parts):
    """The exit code of `flaxgen compose`, by default of all three parts."""
    given = {"autoencoder": toy.autoencoder, "transformer": toy.transformers[name], "clip": toy.clip} | parts
    return main(["compose", str(target), *(f"{part}={path}" for part, path in given.items())])


@pytest.fixture(scope="module")
def wholes(toy, tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("composed") / name for name in NETS}
    for name, folder in folders.items():
        assert compose(folder, toy, name) == 0
    return folders


@pytest.fixture(scope="module")
def models(wholes):
    return {name: flaxgen.load(folder).transformer for name, folder in wholes.items()}


@functools.lru_cache
def whole_pass(net):
    return jax.jit(lambda params, example: kind_of(net).call(functools.partial(net.apply, {"params": params}), example))


def code_logits(model, tokens, codes, all_of_them=False):
    """[B N K] of all places by the whole pass, of the autoencoder's codes or of all that the net knows."""
    given = whole_pass(model.config.net)(model.params, Example(tokens.ids, tokens.mask, codes, False))
    logits = given[1] if isinstance(given, tuple) else given
    return np.asarray(logits).reshape(len(codes), SIDE**2, -1)[..., : None if all_of_them else CODES]


@pytest.mark.parametrize("name", ["dalle", pytest.param("dalle-mini", marks=pytest.mark.slow)])
def test_a_run_learns_from_captions_and_codes(name, toy, tmp_path, monkeypatch):
    """Logits begin at 0; BPE dropout reaches the loader."""
    seen, batches = [], verbs.batches

    def watched(source, order, **more):
        seen.append(batch_at(source, order, 0, fields=more["fields"], transform=more["transform"]))
        seen.append(batch_at(source, order, 0, fields=more["fields"]))
        return batches(source, order, **more)

    monkeypatch.setattr(verbs, "batches", watched)
    config = dalle_toy.config_of(name, toy, caption_dropout=0.0, bpe_dropout=0.5)
    verbs.train(config, tmp_path / "run", parallel.make_plan("jit"))
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    text, code = np.log(TOKENS + CONTEXT), np.log(CODES if name == "dalle" else CODES + 3)
    assert first["code_nats"] == pytest.approx(code, rel=1e-5)
    assert first["loss"] == pytest.approx(text / 8 + code * 7 / 8 if name == "dalle" else code, rel=1e-5)
    dropped, plain = seen
    np.testing.assert_array_equal(dropped["codes"], plain["codes"])
    assert (dropped["ids"] != plain["ids"]).any(1).all()
    assert FAMILY.augment(dalle_toy.config_of(name), {}) is None
    assert compose(tmp_path / "model", toy, transformer=tmp_path / "run") == 0
    drawn = [flaxgen.load(tmp_path / place).draw(["a red circle"], num=2).images for place in ("run", "model")]
    np.testing.assert_array_equal(*drawn)


@by_net
def test_captions_are_dropped_whole_and_their_text_is_not_counted(name, models):
    """At a dropout close to 1 the text costs nothing, and the codes what they cost after an empty caption."""
    model = models[name]
    config = dataclasses.replace(model.config, caption_dropout=1 - 1e-7)
    batch = {name: jnp.asarray(value) for name, value in a_batch(model).items()}
    loss = jax.jit(FAMILY.make_loss(config, model.files))
    _, metrics = loss(model.params, batch, jax.random.split(jax.random.key(0), 8))
    empty = model.tokenizer([""] * 8)
    logits = code_logits(model, empty, batch["codes"], all_of_them=True)
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["codes"].reshape(8, -1, 1), 2).mean()
    metrics = {name: np.mean(value) for name, value in metrics.items()}
    assert metrics.get("text_nats", 0) == 0
    assert metrics["code_nats"] == pytest.approx(float(nats), rel=1e-5)
    assert metrics["loss"] == pytest.approx((7 / 8 if name == "dalle" else 1) * float(nats), rel=1e-5)


def a_batch(model):
    tokens = model.tokenizer([CAPTIONS[i % 2] for i in range(8)])
    codes = np.random.default_rng(0).integers(0, CODES, (8, SIDE, SIDE), dtype=np.int32)
    return {"codes": codes, "ids": tokens.ids, "mask": tokens.mask}


@pytest.mark.slow
def test_a_step_on_a_mesh_is_a_step_on_one_device(toy, models):
    model, found = models["dalle-mini"], []
    config = dataclasses.replace(model.config, caption_dropout=0.5)
    for plan in (parallel.jit_plan(), parallel.mesh_plan(data=4, fsdp=2)):
        init, make_step = FAMILY.training(config, model.files)
        state = init(jax.random.key(0))
        state = plan.place_state(state._replace(params=jax.tree.map(jnp.array, model.params)))
        state, metrics = plan.compile_step(make_step)(state, plan.place_batch(a_batch(model)), jax.random.key(1))
        found.append((jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}))
    (ours, said), (theirs, told) = found
    assert said == pytest.approx(told, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)


@by_net
def test_cached_codes_are_the_likeliest_of_the_whole_pass(name, models):
    """With guidance, of both passes; guidance by 1 is none; and nothing is drawn that the autoencoder lacks."""
    model, tokens = models[name], models[name].tokenizer(CAPTIONS)
    plain = model.draw_codes(CAPTIONS, jax.random.key(1), drawing=COLD, num_codes=CODES)
    assert len({tuple(codes.ravel()) for codes in plain}) == 2, "it reads the captions"
    likeliest = code_logits(model, tokens, plain).argmax(-1)
    np.testing.assert_array_equal(plain, likeliest.reshape(plain.shape))

    narrow = dataclasses.replace(COLD, temperature=1.0, top_p=1e-6)
    nucleus = model.draw_codes(CAPTIONS, jax.random.key(1), drawing=narrow, num_codes=CODES)
    np.testing.assert_array_equal(nucleus, plain)

    draw = jax.jit(make_draw(model.config, dataclasses.replace(COLD, guidance=2.0), CODES))
    empty = model.tokenizer([""])
    given = {"params": model.params, "empty_ids": empty.ids, "empty_mask": empty.mask, "temperature": 0.0, "top_p": 1.0}
    inputs = {"ids": tokens.ids, "mask": tokens.mask, "key": jax.random.split(jax.random.key(0), 2)}
    np.testing.assert_array_equal(draw({**given, "guidance": 1.0}, inputs), plain)
    strong = np.asarray(draw({**given, "guidance": 9.0}, inputs))
    assert (strong != plain).any()
    null = code_logits(model, model.tokenizer(["", ""]), strong)
    guided = null + 9 * (code_logits(model, tokens, strong) - null)
    np.testing.assert_array_equal(strong, guided.argmax(-1).reshape(strong.shape))


@by_net
def test_upper_rows_are_kept_and_the_rest_follows_from_them(name, models, wholes, tmp_path):
    model, known = models[name], np.full((2, SIDE), 3)
    codes = model.draw_codes(CAPTIONS, jax.random.key(1), drawing=COLD, known=known, num_codes=CODES)
    np.testing.assert_array_equal(codes[:, :2], np.repeat(known[None], 2, 0))
    likeliest = code_logits(model, model.tokenizer(CAPTIONS), codes).argmax(-1).reshape(codes.shape)
    np.testing.assert_array_equal(codes[:, 2:], likeliest[:, 2:])

    picture = open_source(dalle_toy.DATA)[0]["image"]
    Image.fromarray(picture).save(tmp_path / "a.png")
    whole, out = flaxgen.load(wholes[name]), tmp_path / "out.npz"
    more = ["--complete", str(tmp_path / "a.png"), "--temperature", "0", "--num", "1", "--out", str(out)]
    assert main(["draw", *CAPTIONS, "--model", str(wholes[name]), *more]) == 0
    vq = whole.parts["autoencoder"]
    kept = vq.encode_codes(picture[None])[0, : SIDE // 2]
    codes = model.draw_codes(CAPTIONS, jax.random.key(0), drawing=COLD, known=kept, num_codes=CODES)
    with np.load(out) as stored:
        np.testing.assert_array_equal(stored["samples"], to_pixels(vq.decode_codes(codes)))


def test_of_candidates_the_nearest_to_the_caption_is_kept(wholes):
    whole = flaxgen.load(wholes["dalle"])
    chosen = whole.draw(CAPTIONS, num=2, candidates=3, seed=5)
    everything = flaxgen.load(wholes["dalle"]).draw(CAPTIONS, num=6, seed=5)
    clip = whole.parts["clip"]
    text = clip.encode_text(CAPTIONS).embedding
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    cosines = np.einsum("cnd,cd->cn", unit(clip.encode_image(everything.images)).reshape(2, 6, -1), unit(text))
    assert np.ptp(cosines) > 1e-3
    for i in range(4):
        of_caption, first = i // 2, 3 * (i % 2)
        best = first + cosines[of_caption, first : first + 3].argmax()
        np.testing.assert_array_equal(chosen.images[i], everything.images[6 * of_caption + best])
        assert chosen.scores[i] == pytest.approx(cosines[of_caption, best], abs=1e-4)


def test_a_model_directory_and_a_composed_model_draw_the_same(toy, wholes, tmp_path):
    """The one finds its autoencoder where its config says."""
    drawn = []
    for path in (toy.transformers["dalle-mini"], wholes["dalle-mini"]):
        out = tmp_path / f"{path.parent.name}.npz"
        assert main(["draw", *CAPTIONS, "--model", str(path), "--num", "1", "--out", str(out)]) == 0
        with np.load(out) as stored:
            drawn.append(stored["samples"])
    assert drawn[0].shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(*drawn)


def refused(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_another_autoencoder_is_refused_in_one_line(toy, tmp_path, capsys):
    parts = [f"autoencoder={toy.other}", f"transformer={toy.transformers['dalle']}"]
    assert "this stage was trained with the autoencoder" in refused(["compose", str(tmp_path / "a"), *parts], capsys)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (NETS["dalle-mini"].clone(codes=5, begin=5), "net.codes=5, the autoencoder has 6: set net.codes=6"),
        (NETS["dalle-mini"].clone(length=9), "maps of 3 x 3 codes, the autoencoder's is 4 x 4"),
        (NETS["dalle"].clone(codes=7), "net.codes=7, the autoencoder has 6: set net.codes=6"),
    ],
)
def test_a_net_for_other_maps_is_refused(net, said, toy):
    with pytest.raises(ValueError, match=said):
        FAMILY.prepare(dalle_toy.config_of("dalle", toy, net=net), {})


def test_what_cannot_be_drawn_is_said(toy, wholes, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out.png")]
    alone = str(toy.transformers["dalle"])
    for model, arguments, expected in (
        (str(wholes["dalle"]), ["--rows", "2"], "--rows 2 are of a picture to complete: give --complete too"),
        (alone, ["--candidates", "2"], "candidates=2 are told apart by a CLIP, and there is none"),
    ):
        assert expected in refused(["draw", "a", "--model", model, *arguments, *out], capsys)
    picture = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="rows=4: expected 1 to 3 of the 4 rows"):
        flaxgen.load(wholes["dalle-mini"]).draw(["a"], complete=picture, rows=4)
    never = dataclasses.replace(flaxgen.load(alone).config, caption_dropout=0.0)
    with pytest.raises(ValueError, match=r"guidance=2\.0 needs a model trained with caption_dropout"):
        dataclasses.replace(flaxgen.load(alone), config=never).draw(["a"], guidance=2.0)
    whole = flaxgen.load(wholes["dalle"])
    with pytest.raises(ValueError, match="this model lacks the part 'autoencoder'"):
        dataclasses.replace(whole, parts={"transformer": whole.parts["transformer"]}).draw(["a"])


def test_what_is_cut_off_a_caption_is_shown_once(models, capsys):
    model = dataclasses.replace(models["dalle"])
    model.draw_codes(["a red circle " * 4, "a red circle " * 8], jax.random.key(0), drawing=COLD)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"longer than {CONTEXT} tokens are cut to that, the first of them before" in line
    assert line.split("'")[1] in "a red circle " * 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bpe_dropout": 1.5}, "bpe_dropout=1.5: expected 0"),
        ({"text_weight": 1.0}, "text_weight=1.0: expected a share below 1"),
        ({"net": NETS["dalle-mini"].clone(length=15)}, "net.length=15: expected a square"),
        ({"data": dataclasses.replace(dalle_toy.DATA, flip=True)}, "their codes are computed once"),
    ],
)
def test_parts_that_do_not_fit(changes, said):
    with pytest.raises(ValueError, match=said):
        dalle_toy.config_of("dalle", **changes)


def test_bpe_dropout_is_a_function_of_seed_and_place(toy, models):
    config = dalle_toy.config_of("dalle", toy, bpe_dropout=0.3)
    files = models["dalle"].files
    assert {TOKENIZER, NAMED} <= files.keys()
    source, transform = FAMILY.open_source(FAMILY, config, files), FAMILY.augment(config, files)
    read = lambda seed, step: batch_at(source, Order(seed, 8), step, fields=("ids", "mask"), transform=transform)  # noqa: E731
    np.testing.assert_array_equal(read(0, 3)["ids"], read(0, 3)["ids"])
    again = [read(0, step)["ids"] for step in range(0, 9, 3)]  # the same captions in other orders
    assert len({tuple(row) for ids in again for row in ids}) > 8
