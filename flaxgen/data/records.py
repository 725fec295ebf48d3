"""ArrayRecord files and TFDS data sets, without TensorFlow; their packages are imported only when used."""

import glob
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from flaxgen.data.decode import BrokenImage, DataError
from flaxgen.data.files import check_regular
from flaxgen.data.folder import as_caption, caption_key, file_size

IMAGE_FIELDS = ("image", "image/encoded", "jpg", "png", "webp")
LABEL_FIELDS = ("image/class/label", "cls")
"""Where labels are looked for beside the field asked for."""


class Records:
    """The tf.train.Example protos of ArrayRecord files, undecoded; see `images.Stored`.

    Of each, the image is encoded bytes under one of IMAGE_FIELDS.

    Raises:
        DataError: if there is no such file.
    """

    class_names = None
    num_classes = None

    def __init__(self, path: str, caption_field: str = "", label_field: str = "label"):
        grain: Any = import_module("grain")
        protos: Any = import_module("tensorflow_datasets.proto")
        self._decode_error: type[Exception] = import_module("google.protobuf.message").DecodeError
        pattern = os.path.join(glob.escape(path), "*.array_record*") if os.path.isdir(path) else path
        files = sorted(glob.glob(pattern))
        if not files:
            raise DataError(f"data.path {path} names no .array_record file")
        for file in files:
            check_regular(file)
        self._source = grain.sources.ArrayRecordDataSource(files)
        self._parse = protos.tf_example_pb2.Example.FromString
        self._path, self._caption_field, self._label_field = path, caption_field, label_field
        self._files = files

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        return f"record {index} of {self._path}"

    def outline(self) -> Iterator[str]:
        """Name and size of every file; see `identity.Filed`."""
        for file in self._files:
            yield f"{os.path.basename(file)} {file_size(file)}"

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        try:
            features = self._parse(self._source[index]).features.feature
        except self._decode_error as error:
            raise BrokenImage(f"not a tf.train.Example: {error}") from error
        row = {name: _feature_value(feature) for name, feature in features.items()}
        return _example(row, self._caption_field, self._label_field)


class Tfds:
    """A TFDS data set by name ("cifar10", "my_set:1.0.0"), undecoded; see `images.Stored`. It is downloaded and
    prepared as array_record unless `data_dir` holds it.

    Raises:
        DataError: if TFDS does not know it or cannot make it.
    """

    def __init__(self, name: str, split: str, data_dir: str, caption_field: str = "", label_field: str = "label"):
        tfds: Any = import_module("tensorflow_datasets")
        try:
            builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
            features = dict(builder.info.features or {})
            skip = {key: tfds.decode.SkipDecoding() for key, value in features.items() if _is_image(value, tfds)}
            builder.download_and_prepare()
            self._source = builder.as_data_source(split=split, decoders=skip)
        except (ValueError, OSError, ImportError, NotImplementedError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise DataError(f"TFDS cannot give split {split!r} of data.name={name!r}: {reason}") from error
        label = features.get(label_field)
        self.num_classes = getattr(label, "num_classes", None)
        names = getattr(label, "names", None)
        self.class_names = tuple(names) if names else None
        self._name, self._caption_field, self._label_field = f"{name} {split}", caption_field, label_field
        self._full_name = f"{builder.info.full_name} {split}"

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        return f"example {index} of {self._name}"

    def outline(self) -> Iterator[str]:
        """Name with version, and split; see `identity.Filed`."""
        yield self._full_name

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return _example(self._source[index], self._caption_field, self._label_field)


def _is_image(feature, tfds) -> bool:
    return isinstance(feature, tfds.features.Image)


def _feature_value(feature) -> bytes | int | None:
    """The first value of a tf.train.Feature of bytes or integers."""
    for values in (feature.bytes_list.value, feature.int64_list.value):
        if values:
            return values[0]
    return None


def _example(row: Mapping[str, Any], caption_field: str, label_field: str) -> Mapping[str, Any]:
    image = next((row[name] for name in IMAGE_FIELDS if row.get(name) is not None), None)
    if image is None:
        raise DataError(f"no image among the fields {', '.join(row)}: expected one of {', '.join(IMAGE_FIELDS)}")
    example: dict[str, Any] = {"image": image}
    label = next((row[name] for name in (label_field, *LABEL_FIELDS) if row.get(name) is not None), None)
    if isinstance(label, int | np.integer):
        example["label"] = int(label)
    caption = caption_key(list(row), caption_field, "the records")
    if caption:
        text = row[caption]
        example["text"] = text.decode(errors="replace") if isinstance(text, bytes) else as_caption(text, caption)
    return example
