"""Folders as runs leave them, written with torch's own writer."""

import json

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from torch.utils.tensorboard import SummaryWriter

FINDING = {
    "id": "vanishing-gradient",
    "severity": "error",
    "step": 5,
    "layers": ["net.0"],
    "evidence": {
        "gradient_depth_log10": {"value": -9.3, "sign": "<", "threshold": -6.0, "name": "severe"}
    },
    "message": "The gradient shrinks by 10^9.3.",
    "advice": ['Add `WeightInitialization(scheme="auto")`: it fits each layer.'],
    "source": "Glorot & Bengio 2010",
}


def falling(steps=60, start=2.0, end=0.1, noise=0.01):
    """Return a healthy loss: it falls, and has settled at the end."""
    part = np.linspace(0, 1, steps)
    wave = noise * np.sin(40 * part)
    return end + (start - end) * np.exp(-9 * part) + wave


def write_curves(folder, curves, suffix=""):
    """Write curves, each a list of values or of (step, value), and return the folder."""
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for tag, values in curves.items():
            for step, value in enumerate(values):
                at, number = value if isinstance(value, tuple) else (step, value)
                writer.add_scalar(tag, float(number), at)
    return folder


def write_packed(folder, rows, suffix=""):
    """Write one event for each (step, values by tag)."""
    with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for step, values in rows:
            packed = [Summary.Value(tag=t, simple_value=v) for t, v in values.items()]
            writer._get_file_writer().add_summary(Summary(value=packed), step)
    return folder


def write_record(folder, tag, record, step=0):
    """Write JSON as the suite packs it into an event."""
    plugin = SummaryMetadata.PluginData(plugin_name="lightning_stab")
    text = record if isinstance(record, str) else json.dumps(record)
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()])
    metadata = SummaryMetadata(plugin_data=plugin)
    value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
    with SummaryWriter(str(folder), filename_suffix=f".{step}") as writer:
        writer._get_file_writer().add_summary(Summary(value=[value]), step)
    return folder
