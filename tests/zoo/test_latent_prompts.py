"""Prompts by A1111's rules: its own examples, chunks, and a formula in float64."""

import numpy as np
import pytest

from flaxgen.data.tokenize import train_bpe
from flaxgen.zoo.latent.prompts import chunked, parse, weighted

CONTEXT = 10
TOKENIZER = train_bpe(["a red circle, a blue square"] * 3, 320, CONTEXT)


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("normal text", [("normal text", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("[less] and (twice:2)", [("less", 1 / 1.1), (" and ", 1), ("twice", 2)]),
        ("a:b) c]", [("a:b) c]", 1)]),
        ("", []),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
                ("sky", 1.4641), (".", 1.1),
            ],
        ),
    ],
)  # fmt: skip
def test_brackets(prompt, pieces):
    found = parse(prompt)
    assert [piece.words for piece in found] == [words for words, _ in pieces]
    np.testing.assert_allclose([piece.weight for piece in found], [weight for _, weight in pieces], rtol=1e-12)


def test_a_short_prompt_is_as_its_tokenizer_has_it():
    prompt = chunked(TOKENIZER, "a red circle")
    tokens = TOKENIZER(["a red circle"])
    np.testing.assert_array_equal(prompt.ids, tokens.ids)
    np.testing.assert_array_equal(prompt.mask, tokens.mask)
    assert (prompt.weights == 1).all()
    assert chunked(TOKENIZER, "").ids.tolist() == TOKENIZER([""]).ids.tolist()


def test_a_long_prompt_is_chunks_and_a_comma_near_the_end_ends_one():
    words = "a red circle a red circle"
    ids = TOKENIZER.pieces(words + " " + words)
    prompt = chunked(TOKENIZER, words + " " + words)
    held = [row[mask][1:-1].tolist() for row, mask in zip(prompt.ids, prompt.mask, strict=True)]
    assert [token for chunk in held for token in chunk] == ids
    assert [len(chunk) for chunk in held[:-1]] == [CONTEXT - 2] * (len(held) - 1)
    assert (prompt.ids[:, 0] == TOKENIZER.start_id).all()

    prompt = chunked(TOKENIZER, "a red, circle a red circle a red circle")
    first = TOKENIZER.decode(prompt.ids[0])
    assert first.endswith("a red,")
    assert len(prompt.ids) > 1


def test_break_begins_a_chunk_and_plain_prompts_have_none():
    prompt = chunked(TOKENIZER, "a red BREAK circle")
    assert [TOKENIZER.decode(row) for row in prompt.ids] == ["a red", "circle"]
    plain = chunked(TOKENIZER, "(red) BREAK", plain=True)
    assert "(red) break" in " ".join(TOKENIZER.decode(row) for row in plain.ids)


def test_words_of_ones_own_are_their_tokens():
    prompt = chunked(TOKENIZER, "a (<cat>:1.5) red", own={"<cat>": [401, 402]})
    assert prompt.ids[0, 2:4].tolist() == [401, 402]
    np.testing.assert_allclose(prompt.weights[0, 2:4], 1.5)
    assert 401 not in chunked(TOKENIZER, "a concatenation", own={"cat": [401]}).ids


def test_states_are_weighed_and_keep_their_mean():
    rng = np.random.default_rng(0)
    states, weights = rng.normal(0.3, 1, (2, 5, 7)).astype(np.float32), rng.uniform(0.5, 1.5, (2, 5)).astype(np.float32)
    weights[1] = 1
    wide = states[0].astype(np.float64)
    expected = wide * weights[0, :, None]
    expected *= wide.mean() / expected.mean()
    np.testing.assert_allclose(weighted(states, weights)[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(weighted(states, weights)[1], states[1])
