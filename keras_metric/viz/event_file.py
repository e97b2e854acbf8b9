"""Scalars and images in an event file of TensorBoard."""

import io
import time


class EventFile:
    """Writes scalars and images into a folder for TensorBoard, on any Keras backend.

    `keras.callbacks.TensorBoard` needs TensorFlow; this class needs the package `tensorboard`.
    """

    def __init__(self, log_dir):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(log_dir))

    def scalars(self, values, step):
        """Write a dict of numbers as points of their curves at `step`."""
        from tensorboard.plugins.scalar.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        for tag, value in values.items():
            tensor = make_tensor_proto(float(value), "float32")
            self._add(tag, tensor, create_summary_metadata, step)

    def figure(self, tag, figure, step):
        """Write a matplotlib figure as an image at `step`."""
        from tensorboard.plugins.image.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100)
        width, height = (round(100 * side) for side in figure.get_size_inches())
        parts = [str(width).encode(), str(height).encode(), png.getvalue()]
        self._add(tag, make_tensor_proto(parts), create_summary_metadata, step)

    def close(self):
        """Flush and close the file."""
        self.writer.close()

    def _add(self, tag, tensor, create_metadata, step):
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=int(step))
        metadata = create_metadata(display_name=None, description=None)
        event.summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
        self.writer.add_event(event)
        self.writer.flush()
