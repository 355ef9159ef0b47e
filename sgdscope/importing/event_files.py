"""Event files of TensorBoard, read by TensorBoard itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgdscope.errors import InputError


@dataclass(frozen=True)
class Events:
    """What the event files of one folder hold.

    Args:
        scalars: Values in the order of their steps, by tag.
        hparams: Hyperparameters by name.
    """

    scalars: dict[str, list[float]]
    hparams: dict[str, Any]


def read_events(folder: Path) -> Events:
    """Read the event files of a folder, without those below it.

    Raises:
        InputError: If TensorBoard is not installed.
    """
    try:
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise InputError(
            f"{folder} holds event files, which TensorBoard reads. Install it: pip install 'sgdscope[tensorboard]'."
        ) from error
    read = EventAccumulator(str(folder), size_guidance={SCALARS: 0, TENSORS: 0})
    read.Reload()
    tags = read.Tags()
    points = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["tensors"]:  # as TensorFlow 2 writes scalars
        if read.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            points[tag] = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in read.Tensors(tag)]
    hparams: dict[str, Any] = {}
    for content in read.PluginTagToContent(metadata.PLUGIN_NAME).values() if _has_hparams(read, metadata) else ():
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        hparams |= {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    # They are of 32 bits: the shortest number that is the same there is the one that was written.
    return Events(
        {
            tag: [float(str(np.float32(value))) for _, value in sorted(of, key=lambda p: p[0])]
            for tag, of in points.items()
        },
        hparams,
    )


def _has_hparams(read: Any, metadata: Any) -> bool:
    try:
        read.PluginTagToContent(metadata.PLUGIN_NAME)
    except KeyError:
        return False
    return True
