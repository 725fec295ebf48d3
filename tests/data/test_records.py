"""ArrayRecord files and TFDS data sets, written and read without TensorFlow."""

import io
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from flaxgen.data import Data, DataError, open_source

tfds = pytest.importorskip("tensorflow_datasets")
Example = tfds.proto.tf_example_pb2.Example


def png(level: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (level, level, level)).save(file, "PNG")
    file.seek(0)
    return file


def record(level: int, image_field: str = "image", label_field: str = "label") -> bytes:
    example = Example()
    example.features.feature[image_field].bytes_list.value.append(png(level).getvalue())
    example.features.feature[label_field].int64_list.value.append(level % 3)
    example.features.feature["caption"].bytes_list.value.append(f"Käuzchen {level}".encode())
    return example.SerializeToString()


def write_records(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for data in records:
        writer.write(data)
    writer.close()


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Twelve grey pictures."""

    VERSION = tfds.core.Version("1.0.0")
    PICTURES = range(12)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
            "text": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(8)), "test": self._generate_examples(range(8, 12))}

    def _generate_examples(self, levels):
        for level in levels:
            yield level, {"image": png(level), "label": level % 3, "text": f"Käuzchen {level}"}


def check(source, levels):
    found = [source[i] for i in range(len(source))]
    assert sorted(int(e["image"][0, 0, 0]) for e in found) == list(levels)
    for example in found:
        level = int(example["image"][0, 0, 0])
        np.testing.assert_array_equal(example["image"], np.full((4, 4, 3), level, np.uint8))
        assert example["label"] == level % 3
        assert example["text"] == f"Käuzchen {level}"


def test_array_record_files_of_a_folder(tmp_path):
    for k in range(2):
        write_records(tmp_path / f"set-{k:05d}-of-00002.array_record", [record(4 * k + i) for i in range(4)])
    check(open_source(Data("array_record", path=str(tmp_path))), range(8))
    check(open_source(Data("array_record", path=str(tmp_path / "set-00001*"))), range(4, 8))


def test_array_record_with_the_usual_imagenet_names(tmp_path):
    write_records(tmp_path / "a.array_record", [record(i, "image/encoded", "image/class/label") for i in range(3)])
    check(open_source(Data("array_record", path=str(tmp_path))), range(3))


def test_a_broken_record_is_skipped(tmp_path):
    write_records(tmp_path / "a.array_record", [b"\xff no proto"] + [record(i) for i in range(1, 12)])
    source = open_source(Data("array_record", path=str(tmp_path)))
    assert source[0]["label"] == int(source[0]["image"][0, 0, 0]) % 3
    assert list(source.broken) == [0]


def test_records_without_an_image_are_one_line(tmp_path):
    write_records(tmp_path / "a.array_record", [record(0, image_field="picture")])
    with pytest.raises(DataError, match=r"no image among the fields .*picture"):
        open_source(Data("array_record", path=str(tmp_path)))[0]


def test_no_files(tmp_path):
    with pytest.raises(DataError, match=r"names no \.array_record file"):
        open_source(Data("array_record", path=str(tmp_path)))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    TinyPictures(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


def test_tfds_by_name(data_dir):
    source = open_source(Data("tfds", name="tiny_pictures", path=data_dir))
    check(source, range(8))
    assert source.class_names == ("a", "b", "c")
    assert source.num_classes == 3
    check(open_source(Data("tfds", name="tiny_pictures:1.0.0", path=data_dir, split="test")), range(8, 12))
    check(open_source(Data("tfds", name="tiny_pictures", path=data_dir, split="test[:50%]")), range(8, 10))
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("name", "split", "reason"), [("tiny_pictures", "nope", "nope"), ("nonesuch", "train", "not found")]
)
def test_tfds_errors_are_one_line(data_dir, name, split, reason):
    with pytest.raises(DataError, match=f"{split}.*{name}.*{reason}") as error:
        open_source(Data("tfds", name=name, path=data_dir, split=split))
    assert "\n" not in str(error.value)


def test_a_caption_that_is_none_is_broken(tmp_path):
    example = Example.FromString(record(1))
    del example.features.feature["caption"].bytes_list.value[:]
    write_records(tmp_path / "a.array_record", [example.SerializeToString()])
    source = open_source(Data("array_record", path=str(tmp_path)))
    with pytest.raises(DataError, match=r"record 0 of .*: its caption in caption is null, expected text"):
        source[0]
