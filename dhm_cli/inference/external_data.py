"""ONNX files may name other files that hold their numbers; networks of dhm never do, and are refused where they do."""

from collections.abc import Iterator
from typing import Any

from dhm_cli.errors import FormatError
from dhm_cli.inference.weights import GIVE_ANOTHER


def refuse_external_data(model: bytes, name: str) -> None:
    """Refuse a network that would have ONNX Runtime read other files than its own.

    Args:
        model: content of an ONNX file.
        name: its name, for the message.

    Raises:
        FormatError: a tensor's data lie in another file, or it is not an ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        tensors = list(_tensors(onnx.load_from_string(model)))
    except DecodeError as error:
        raise FormatError(f"{name}: not an ONNX network: {error}", hint=GIVE_ANOTHER) from error
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise FormatError(
                f"{name}: keeps its numbers in another file, which dhm does not read",
                hint="store it whole, in one file: onnx.save(onnx.load(FILE), FILE, save_as_external_data=False)",
            )


def _tensors(message: Any) -> Iterator[Any]:
    """The tensors in a part of an ONNX file, those of nested graphs too."""
    import onnx
    from google.protobuf.message import Message

    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _tensors(part)
