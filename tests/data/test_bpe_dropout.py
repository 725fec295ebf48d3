"""BPE dropout beside the tokenizer itself, bytes, and probabilities that are known."""

import json
from collections import Counter

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from flaxgen.data.bpe_dropout import make_bpe_dropout
from flaxgen.data.decode import DataError
from flaxgen.data.tokenize import Tokenizer, read_tokenizer, train_bpe

CAPTIONS = [f"a {colour} {shape} above it" for colour in ("red", "green", "blue") for shape in ("circle", "triangle")]
TOKENIZER = train_bpe(CAPTIONS, 320, 48)
ODD = [*CAPTIONS, "", "A  Red\ncircle", "日本 🎨 café", "<end> of", "half \ud83d", "naïve " * 40]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tokenizer of CLIP's kind, whose words end in a mark of their own."""
    folder = tmp_path_factory.mktemp("clip")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *(byte + "</w>" for byte in alphabet), "ab", "abc</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nab c</w>\n")
    return read_tokenizer(folder, 12)


def test_without_dropout_the_tokens_are_the_tokenizers(clip):
    for tokenizer, captions in ((TOKENIZER, ODD), (clip, ["abc ab abcab", "A red circle", ""])):
        same = make_bpe_dropout(tokenizer, 0.0)
        for caption in captions:
            expected = tokenizer([caption])
            found = same({"text": caption, "label": 3}, rng())
            np.testing.assert_array_equal(found["ids"], expected.ids[0])
            np.testing.assert_array_equal(found["mask"], expected.mask[0])
            assert found["ids"].dtype == np.int32
            assert found["label"] == 3


def test_with_all_dropped_every_byte_is_a_token():
    found = make_bpe_dropout(TOKENIZER, 1.0)({"text": "a red"}, rng())
    assert found["mask"].sum() == 2 + len(" a red")


def test_other_tokens_stand_for_the_same_text():
    drop, drawn = make_bpe_dropout(TOKENIZER, 0.5), set()
    for seed in range(20):
        ids = drop({"text": "A red circle"}, rng(seed))["ids"]
        assert TOKENIZER.decode(ids) == "a red circle"
        drawn.add(tuple(ids.tolist()))
    assert len(drawn) > 10


def test_the_generator_alone_decides():
    drop = make_bpe_dropout(TOKENIZER, 0.3)
    for seed in range(5):
        first, second = (drop({"text": CAPTIONS[0]}, rng(seed))["ids"] for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_merges_are_dropped_as_often_as_they_should_be(clip):
    """abc becomes ab + c and then abc, each kept with 1 - p: (1 - p)^2 whole, (1 - p) p in two, p in three."""
    p, draws, generator = 0.3, 4000, rng()
    drop = make_bpe_dropout(clip, p)
    counts = Counter(int(drop({"text": "abc"}, generator)["mask"].sum()) - 2 for _ in range(draws))
    for length, probability in ((1, (1 - p) ** 2), (2, (1 - p) * p), (3, p)):
        assert abs(counts[length] / draws - probability) < 5 * np.sqrt(probability * (1 - probability) / draws)


def test_long_captions_are_cut_and_keep_their_end():
    found = make_bpe_dropout(TOKENIZER, 0.7)({"text": "red " * 500}, rng())
    assert found["ids"].shape == (48,)
    assert found["mask"].all()
    assert found["ids"][-1] == TOKENIZER.end_id


def changed(**fields):
    content = json.loads(TOKENIZER.to_json())
    return Tokenizer(json.dumps(content | {"model": content["model"] | fields}))


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match=r"bpe_dropout=1\.5: expected 0"):
        make_bpe_dropout(TOKENIZER, 1.5)
    with pytest.raises(ValueError, match="this tokenizer has byte_fallback"):
        make_bpe_dropout(changed(byte_fallback=True), 0.1)
    content = json.loads(TOKENIZER.to_json())
    content["model"] |= {"vocab": {name: i for name, i in content["model"]["vocab"].items() if name != "!"}}
    with pytest.raises(ValueError, match="needs a token for every byte, this tokenizer has none for '!'"):
        make_bpe_dropout(Tokenizer(json.dumps(content)), 0.1)
    with pytest.raises(DataError, match="no caption for BPE dropout"):
        make_bpe_dropout(TOKENIZER, 0.1)({"label": 1}, rng())
