"""The scalars and images that TensorBoard shows."""

import io
import time


class EventFile:
    """Writes scalars and images for TensorBoard, on any Keras backend.

    `keras.callbacks.TensorBoard` needs TensorFlow; this needs the package `tensorboard` alone,
    which is imported here and not before.

    Args:
        log_dir: Folder that TensorBoard is pointed at; made if missing.

    Raises:
        ImportError: if `tensorboard` is not installed.
    """

    def __init__(self, log_dir):
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                "Writing for TensorBoard needs the package `tensorboard`, which TensorFlow no "
                "longer brings along: pip install tensorboard"
            ) from error
        self.writer = EventFileWriter(str(log_dir))

    def scalars(self, values, step):
        """Write a dict of numbers as points of their curves at `step`."""
        from tensorboard.plugins.scalar.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        for tag, value in values.items():
            self._add(
                tag, make_tensor_proto(float(value), "float32"), create_summary_metadata, step
            )

    def figure(self, tag, figure, step):
        """Write a matplotlib figure as an image at `step`."""
        from tensorboard.plugins.image.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100)
        width, height = (round(100 * side) for side in figure.get_size_inches())
        parts = [str(width).encode(), str(height).encode(), picture.getvalue()]
        self._add(tag, make_tensor_proto(parts), create_summary_metadata, step)

    def close(self):
        """Write out what is left and close the file."""
        self.writer.close()

    def _add(self, tag, tensor, describe, step):
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=int(step))
        metadata = describe(display_name=None, description=None)
        event.summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
        self.writer.add_event(event)
        self.writer.flush()
