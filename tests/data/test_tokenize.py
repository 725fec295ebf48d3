"""Captions to tokens: what comes back, what is cut, and what is refused."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxgen.data.tokenize import Tokenizer, read_tokenizer, train_bpe

CAPTIONS = [
    f"a {colour} {shape} {place} a {other} square"
    for colour in ("red", "green", "blue")
    for shape in ("circle", "triangle")
    for place in ("above", "below", "left of", "right of")
    for other in ("white", "black")
]
TOKENIZER = train_bpe(CAPTIONS, 320, 16)
WIDE = train_bpe(CAPTIONS, 320, 256)


def test_a_caption_is_start_text_end_and_padding():
    ids, mask = TOKENIZER(["a red circle", ""])
    assert ids.dtype == np.int32
    assert mask.dtype == bool
    assert ids.shape == mask.shape == (2, 16)
    for row, real in zip(ids, mask, strict=True):
        length = real.sum()
        assert real[:length].all()
        assert row[0] == TOKENIZER.start_id
        assert row[length - 1] == TOKENIZER.end_id
        assert (row[length:] == TOKENIZER.pad_id).all()
    assert mask[1].sum() == 2
    assert len({TOKENIZER.start_id, TOKENIZER.end_id, TOKENIZER.pad_id}) == 3
    assert TOKENIZER([]).ids.shape == (0, 16)


def test_frequent_words_are_one_token():
    """Five words, three of which come in every second caption or more."""
    _, mask = TOKENIZER(["a red circle above a"])
    assert mask.sum() == 2 + 5


def test_training_keeps_to_its_size_and_its_captions():
    assert TOKENIZER.vocab_size <= 320
    assert TOKENIZER(CAPTIONS).ids.max() < TOKENIZER.vocab_size
    assert train_bpe(CAPTIONS[::-1], 320, 16) == TOKENIZER
    assert train_bpe(["x"], 259, 4).vocab_size == 259


@pytest.mark.parametrize("same", ["A RED  circle", " a red circle\n", "a\tred\u00a0circle"])
def test_case_and_space_do_not_matter(same):
    ids = TOKENIZER(["a red circle", same]).ids
    np.testing.assert_array_equal(ids[0], ids[1])


def test_composed_and_decomposed_letters_are_the_same():
    ids = TOKENIZER(["caf\u00e9", "cafe\u0301"]).ids
    np.testing.assert_array_equal(ids[0], ids[1])


@settings(deadline=None, max_examples=50)
@example("\x1f")  # whitespace to Python, and not to the normaliser
@given(st.text(st.characters(codec="utf-8"), max_size=8))
def test_any_text_comes_back(text):
    """Up to what normalisation takes away; eight letters of up to eight bytes after NFC."""
    tokens = WIDE([text])
    again = WIDE([WIDE.decode(tokens.ids[0])])
    np.testing.assert_array_equal(again.ids, tokens.ids)
    assert tokens.ids.max() < WIDE.vocab_size


def test_decode_gives_the_caption_back():
    captions = ["a red circle", "日本の絵 🎨", "<end> of <start>", "a</w>b", ""]
    assert [WIDE.decode(row) for row in WIDE(captions).ids] == captions


def test_half_a_surrogate_pair_is_a_replacement_character():
    np.testing.assert_array_equal(TOKENIZER(["a \ud83d"]).ids, TOKENIZER(["a \ufffd"]).ids)
    np.testing.assert_array_equal(TOKENIZER(["\ud83c\udfa8"]).ids, TOKENIZER(["🎨"]).ids)


def test_names_of_special_tokens_are_text():
    ids = TOKENIZER(["<end> <pad>"]).ids[0]
    assert (ids == TOKENIZER.end_id).sum() == 1
    assert TOKENIZER(["<end> <pad>"]).mask[0].sum() > 6


def test_long_captions_are_cut_with_one_warning(capsys):
    tokenizer = Tokenizer(TOKENIZER.to_json())
    exact = "red " * 14
    ids, mask = tokenizer([exact])
    assert mask.all()
    assert not capsys.readouterr().err
    cut, mask = tokenizer(["red " * 2500, "a"])
    np.testing.assert_array_equal(cut[0], ids[0])
    assert cut[0, -1] == tokenizer.end_id
    tokenizer([exact + "red"])
    said = "warning: captions longer than 16 tokens are cut to that, the first of them before"
    assert capsys.readouterr().err.splitlines() == [f"{said} {('red ' * 10)!r}"]


def test_a_tokenizer_is_its_file(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(TOKENIZER.to_json(), "utf-8")
    for again in (read_tokenizer(path), read_tokenizer(tmp_path), pickle.loads(pickle.dumps(TOKENIZER))):
        assert again == TOKENIZER
        assert again.to_json() == TOKENIZER.to_json()
        np.testing.assert_array_equal(again(CAPTIONS).ids, TOKENIZER(CAPTIONS).ids)
    shorter = read_tokenizer(path, context=5)
    assert shorter.context == 5
    np.testing.assert_array_equal(shorter(["a red circle"]).ids, TOKENIZER(["a red circle"]).ids[:, :5])


def test_threads_agree():
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda caption: TOKENIZER([caption]).ids[0], CAPTIONS))
    np.testing.assert_array_equal(rows, TOKENIZER(CAPTIONS).ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 300, 8), "no captions"),
        ((["a"], 258, 8), "vocab_size=258 is too small: expected 259"),
        ((["a"], 300, 1), "context=1: expected 2"),
    ],
)
def test_training_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_bpe(*arguments)


def without(*keys):
    content = json.loads(TOKENIZER.to_json())
    return json.dumps(content | dict.fromkeys(keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a tokenizer.json"),
        ("[]", "not a tokenizer.json"),
        ('{"version": "1.0"}', "not a tokenizer.json"),
        (without("truncation"), "states no context: give one"),
        (without("post_processor"), "does not put its start and its end around a caption"),
        (TOKENIZER.to_json().replace("<start>", "<begin>"), "no start and end tokens: expected <start> and <end> or"),
    ],
)
def test_files_that_are_no_tokenizer(text, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_tokenizer(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bart_tokenizers_are_read(tmp_path):
    """As dalle-mini's: <s> 0, <pad> 1, </s> 2, and a file that states neither context nor padding."""
    codec = tokenizers.ByteLevelBPETokenizer(lowercase=True)
    codec.train_from_iterator(CAPTIONS, 300, show_progress=False, special_tokens=["<s>", "<pad>", "</s>"])
    codec.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    codec.save(str(tmp_path / "tokenizer.json"))
    ids, mask = read_tokenizer(tmp_path, context=64, pad_id=1)(["a red circle", ""])
    for row, real, caption in zip(ids, mask, ("a red circle", ""), strict=True):
        assert row.tolist() == [0, *codec.encode(caption, add_special_tokens=False).ids, 2] + [1] * (64 - real.sum())


def test_padding_and_folders_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*tokenizer\.json, nor a vocab\.json and merges\.txt"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(TOKENIZER.to_json())
    with pytest.raises(ValueError, match="pad_id=999 is not one of"):
        read_tokenizer(tmp_path, pad_id=999)
    assert read_tokenizer(tmp_path, pad_id=1)([""]).ids[0].tolist() == [2] + [1] * 15


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("[]", "a b", r"vocab\.json is not a JSON object"),
        ("{", "a b", r"vocab\.json is not JSON"),
        ('{"a": "0"}', "", "every token an id"),
        ('{"a": 0}', "#version: 0.2\na b c", "two tokens a line"),
        ('{"a": 0, "b": 1}', "#version: 0.2\na b", r"merges\.txt has 'ab', which vocab\.json lacks"),
        ('{"a": 0}', "#version: 0.2\n", r"vocab\.json lacks '<\|startoftext\|>'"),
    ],
)
def test_clip_files_that_do_not_fit(vocab, merges, message, tmp_path):
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(ValueError, match=message) as caught:
        read_tokenizer(tmp_path, 77)
    assert "\n" not in str(caught.value)
