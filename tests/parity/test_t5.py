"""T5's encoder beside transformers' T5EncoderModel: the same states, the same file back."""

import jax
import numpy as np
import pytest

from flaxgen.nets.t5 import T5Encoder, bucket_of
from flaxgen.weights import store
from flaxgen.weights.t5 import abstract_params, export_t5, import_t5, t5_from_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
stable = pytest.importorskip("stable_folder")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CASES = {
    "tiny": {},
    "few_near_buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12},
    "wide_heads": {"num_heads": 3, "d_kv": 16, "layer_norm_epsilon": 0.01},
}


@pytest.mark.parametrize("name", CASES)
def test_states_and_files_are_theirs(name, tmp_path):
    """40 places, so that distances lie in all buckets, of ids that have padding."""
    theirs = stable.t5(50, 32, **CASES[name])
    theirs.save_pretrained(tmp_path / "theirs")
    net, params = import_t5(tmp_path / "theirs")
    ids = np.random.default_rng(0).integers(0, 50, (2, 40), np.int32)
    ids[1, 7:] = 0
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(ids).long())[0].numpy()
    found = np.asarray(jax.jit(net.apply)({"params": params}, ids))
    assert np.std(wanted) > 0.3
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    export_t5(net, params, tmp_path / "ours")
    first, second = (store.open_folder(tmp_path / place, "model") for place in ("theirs", "ours"))
    assert set(first) == set(second)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    again = transformers.T5EncoderModel.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20)])
def test_distances_lie_in_their_buckets(buckets, distance):
    kind = transformers.models.t5.modeling_t5.T5Attention
    places = torch.arange(300)
    wanted = kind._relative_position_bucket(places[None] - places[:, None], True, buckets, distance)
    np.testing.assert_array_equal(bucket_of(300, buckets, distance), wanted.numpy())


def test_the_defaults_are_version_xxl():
    config = transformers.T5Config(
        d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    assert t5_from_config(config.to_dict()) == T5Encoder()
    sizes = [leaf.size for leaf in jax.tree.leaves(abstract_params(T5Encoder()))]
    assert sum(sizes) == 4_762_310_656
