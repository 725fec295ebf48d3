"""dalle-mini's folders: in, spelled as there, composed with a VQGAN and drawn, and out again byte for byte."""

import json

import dalle_toy
import jax
import numpy as np
import pytest
import random_weights
import tokenizers

import flaxgen
from flaxgen.cli import main
from flaxgen.data.tokenize import Tokenizer, train_bpe
from flaxgen.interchange.clip_files import write_clip_tokenizer
from flaxgen.interchange.dalle_mini_text import with_spelling, without_spelling
from flaxgen.nets.autoencoder import Autoencoder
from flaxgen.weights import store
from flaxgen.weights.autoencoder import abstract_params as vqgan_params
from flaxgen.weights.dalle_mini import abstract_params, export_dalle_mini
from flaxgen.weights.taming import export_taming
from flaxgen.zoo.dalle import TOKENIZER

NET = dalle_toy.NETS["dalle-mini"]
VQGAN = Autoencoder(
    image_size=16, channels=32, multipliers=(1, 1, 1), depth=1, latent_channels=2, moments=False, code_channels=3
)


def plain_tokenizer():
    """One that leaves captions as they are, as BART's does."""
    described = json.loads(train_bpe(["a red circle"], 300, dalle_toy.CONTEXT).to_json())
    return tokenizers.Tokenizer.from_str(json.dumps({**described, "normalizer": None})).to_str()


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """dalle-mini's folder, and beside it a VQGAN's."""
    root = tmp_path_factory.mktemp("there")
    params = jax.tree.map(lambda x: 3 * x, random_weights.draw_like(abstract_params(NET)))
    export_dalle_mini(NET, params, root / "mini")
    write_clip_tokenizer(Tokenizer(plain_tokenizer()), root / "mini")
    config = store.read_json(root / "mini" / "config.json")
    store.write_json(root / "mini" / "config.json", {**config, "normalize_text": True})
    for name, codes in (("vqgan", dalle_toy.CODES), ("large", NET.codes + 1)):
        weights = random_weights.draw_like(vqgan_params(VQGAN, codes))
        export_taming(VQGAN, weights, root / f"{name}.safetensors")
        assert main(["import", str(root / f"{name}.safetensors"), str(root / f"{name}_model"), "--set", "size=16"]) == 0
    assert main(["import", str(root / "mini"), str(root / "mini_model")]) == 0
    return root


def test_the_files_come_back_byte_for_byte(there, tmp_path):
    assert main(["export", str(there / "mini_model"), str(tmp_path / "back"), "--layout", "dalle-mini"]) == 0
    back = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
    assert back == {path.name: path.read_bytes() for path in (there / "mini").iterdir()}
    assert back.keys() >= {"config.json", "flax_model.msgpack", TOKENIZER}


def test_it_draws_with_its_vqgan(there, tmp_path, capsys):
    """It names no autoencoder: the number of codes and the map are compared, and a line says so."""
    assert main(["draw", "a", "--model", str(there / "mini_model"), "--out", str(tmp_path / "out.png")]) == 2
    assert "this is a transformer alone: draw with the model that `flaxgen compose" in capsys.readouterr().err
    parts = [f"transformer={there / 'mini_model'}", f"autoencoder={there / 'vqgan_model'}"]
    assert main(["compose", str(tmp_path / "model"), *parts]) == 0
    assert "does not say which autoencoder's codes it was trained on" in capsys.readouterr().err
    model = flaxgen.load(tmp_path / "model")
    drawn = model.draw(["A Red Circle!", "a red circle", "a blue café"], num=2)
    assert drawn.about["settings"]["guidance"] == 10.0
    assert drawn.images.shape == (6, 16, 16, 3)
    codes = model.transformer.draw_codes(["A Red Circle!", "a red circle"], jax.random.key(0), num_codes=6)
    assert codes.max() < 6
    parts[1] = f"autoencoder={there / 'large_model'}"
    assert main(["compose", str(tmp_path / "large"), *parts]) == 2
    assert "net.codes=8, the autoencoder has 9: set net.codes=9" in capsys.readouterr().err


def test_captions_are_spelled_by_its_rules_before_they_are_tokens(there):
    tokenizer = flaxgen.load(there / "mini_model").tokenizer
    plain = Tokenizer(plain_tokenizer())
    np.testing.assert_array_equal(tokenizer(["A Red-Circle!"]).ids, plain([" a red circle"]).ids)
    np.testing.assert_array_equal(tokenizer([""]).ids, plain([""]).ids)


@pytest.mark.parametrize(
    ("caption", "spelled"),
    [
        ("A Café — “x”", ' a cafe, " x "'),
        ("it's 1,234,567 o'clock...", " it's 1234567 o \" clock"),
        ("well-known #hash_tag http://x.y z", " well known hash tag z"),
        ("50% off!!!!!", " 50 % off"),
        ("3.5 cm, 12/25/2022 or a/b", " 3.5 cm, 12/25/2022 or a, b"),
        ("[1] <b>bold</b> &amp;amp; &lt;3", " bold & <3"),
        ("VIII, heyyyyyy (you)", " viii, hey, you"),
        ("AT&T\t$20  ", " at & t $ 20"),
    ],
)
def test_spelling(caption, spelled):
    """What the function beside their tokenizer makes of these captions, where its tables are not needed."""
    codec = tokenizers.Tokenizer.from_str(with_spelling(plain_tokenizer()))
    assert codec.normalizer.normalize_str(caption) == spelled


def test_spelling_is_undone_and_leaves_what_is_below():
    for text in (plain_tokenizer(), train_bpe(["a"], 300, 8).to_json()):
        assert without_spelling(with_spelling(text)) == (text, True)
        assert without_spelling(text) == (text, False)


def test_what_is_not_dalle_minis_is_not_exported(tmp_path, capsys):
    toy = dalle_toy.Toy(tmp_path / "vq", tmp_path, tmp_path, {})
    dalle_toy.write_random(toy.autoencoder, dalle_toy.VQ)
    dalle_toy.write_random(tmp_path / "dalle", dalle_toy.config_of("dalle", toy))
    assert main(["export", str(tmp_path / "dalle"), str(tmp_path / "out"), "--layout", "dalle-mini"]) == 2
    assert "a Dalle has no counterpart in dalle-mini" in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_is_imported_and_said(there, tmp_path, capsys):
    for name in ("config.json", "flax_model.msgpack"):
        (tmp_path / name).write_bytes((there / "mini" / name).read_bytes())
    assert main(["import", str(tmp_path), str(tmp_path / "model")]) == 0
    assert "has no tokenizer.json: the model cannot read captions" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no tokenizer\.json beside its weights"):
        flaxgen.load(tmp_path / "model").draw_codes(["a"], jax.random.key(0))
