"""Single files of Stable Diffusion 3: in and out with the same tensors, with text encoders in them and without."""

import jax
import numpy as np
import pytest
import safetensors.numpy
import sd3_toy
import tokenizers

import flaxgen
from flaxgen.cli import main
from flaxgen.weights.sd3_single import read_single, write_single


def t5_tokenizer(folder):
    """T5's kind: pieces, and an end behind them."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((letter, -1.0) for letter in "abcdefghijklm")]
    codec = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, 2))
    codec.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir()
    (folder / "tokenizer.json").write_text(codec.to_str(), "utf-8")


def clip_tokenizer(folder):
    """One of 30 tokens, as the toys' text towers know."""
    words = ["!", *"abcdefghijklm", *(f"{letter}</w>" for letter in "abcdefghijklm")]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    codec = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], end_of_word_suffix="</w>"))
    codec.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    ends = [(word, vocab[word]) for word in ("<|startoftext|>", "<|endoftext|>")]
    framed = " ".join([ends[0][0], "$A", ends[1][0]])
    codec.post_processor = tokenizers.processors.TemplateProcessing(single=framed, special_tokens=ends)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(codec.to_str(), "utf-8")


def same(first, second):
    ours, theirs = safetensors.numpy.load_file(first), safetensors.numpy.load_file(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two files, one without text encoders, and the model of the first."""
    root = tmp_path_factory.mktemp("sd3")
    single = sd3_toy.make()
    halved = jax.tree.map(lambda x: np.asarray(x, np.float16), single.params)
    write_single(root / "whole.safetensors", single._replace(params=halved))
    write_single(root / "bare.safetensors", sd3_toy.make(texts=False, third=False))
    clip_tokenizer(root / "tokenizer")
    t5_tokenizer(root / "tokenizer_3")
    assert main(["import", str(root / "whole.safetensors"), str(root / "model")]) == 0
    return root


def test_a_file_comes_back_tensor_for_tensor_in_its_dtypes(place, tmp_path):
    assert main(["export", str(place / "model"), str(tmp_path / "single"), "--layout", "stability"]) == 0
    same(place / "whole.safetensors", tmp_path / "single" / "model.safetensors")
    model = flaxgen.load(place / "model")
    assert model.whole.config.net == sd3_toy.NET
    assert model.whole.encoders == ("clip", "clip_2")
    assert main(["import", str(tmp_path / "single" / "model.safetensors"), str(tmp_path / "again")]) == 0
    assert flaxgen.load(tmp_path / "again").fingerprint == model.fingerprint


def test_what_a_file_lacks_is_taken_from_elsewhere_or_named(place, tmp_path, capsys):
    bare = str(place / "bare.safetensors")
    assert main(["import", bare, str(tmp_path / "none")]) == 2
    assert "has no text_encoders.clip_l.transformer: say --set clip=DIR" in capsys.readouterr().err
    said = [f"{name}={place / 'model' / name}" for name in ("clip", "clip_2")]
    assert main(["import", bare, str(tmp_path / "model"), "--set", *said]) == 0
    assert "zeros stand for its states" in capsys.readouterr().err
    parts = flaxgen.load(tmp_path / "model").parts
    assert set(parts) == {"autoencoder", "clip", "clip_2", "denoiser"}
    ours, theirs = (flaxgen.load(root / "model").parts["clip_2"].fingerprint for root in (tmp_path, place))
    assert ours == theirs
    assert main(["import", bare, str(tmp_path / "x"), "--set", "prediction=v"]) == 2
    assert "--set prediction: such a file can be told tokenizer" in capsys.readouterr().err


def test_the_projection_of_the_first_encoder_changes_nothing(place):
    single = read_single(place / "whole.safetensors")
    net, params = single.texts["clip"]
    assert net.projected
    np.testing.assert_array_equal(params["text_projection"]["kernel"], np.eye(24))
    names = safetensors.numpy.load_file(place / "whole.safetensors")
    assert "text_encoders.clip_l.transformer.text_projection.weight" not in names
    assert "text_encoders.clip_g.transformer.text_projection.weight" in names


def test_fields_that_no_tensor_says_are_refused(tmp_path):
    wide = sd3_toy.NET.clone(qk_norm=False)
    with pytest.raises(ValueError, match="attention_head_dim=8 is in no tensor"):
        write_single(tmp_path / "a.safetensors", sd3_toy.make(wide))
