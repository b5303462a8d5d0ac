"""Files that are no checkpoint, or one of another framework, by their first bytes: what they are and what to do."""

import re

from deploy_kit.base.errors import CheckpointError

_GIVE = "give a file that torch.save, safetensors, Keras or Paddle wrote, or an ONNX file"
_DOWNLOAD = "download the file itself: the page says how"
_UNPACK = "unpack it and give the checkpoint inside"
# First bytes → (what a file is, what to do).
_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to", "run `git lfs pull`"),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _GIVE),
    (b"\x93NUMPY", "a NumPy array (.npy)", _GIVE),
    (b"GGUF", "a GGUF file", _GIVE),
    (b"\x04\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00V 1", "a Torch7 file (.t7)", "convert it to a torch state dict"),
    (b"\x03\x00\x00\x00\x01\x00\x00\x00", "a Torch7 file (.t7)", "convert it to a torch state dict"),
    (b"4\n1\n3\nV 1", "a Torch7 file (.t7, text)", "convert it to a torch state dict"),
    (b"\x12\x01\x00\x00\x00\x00\x00\x00", "an MXNet parameter file", "export the model to ONNX with MXNet"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", "export the network to ONNX with MATLAB"),
    (b"%PDF", "a PDF document", _GIVE),
    (b"\x89PNG", "a PNG image", _GIVE),
    (b"\xff\xd8\xff", "a JPEG image", _GIVE),
)
_TEXTS = (
    (b"<!doctype html", "an HTML page, not the download it was meant to be", _DOWNLOAD),
    (b"<html", "an HTML page, not the download it was meant to be", _DOWNLOAD),
    (b"<?xml", "an XML document", _GIVE),
    (b"<net", "an OpenVINO graph (.xml)", _GIVE),
)
# Flax writes MessagePack: a map whose first key is `params`; Caffe and MindSpore protocol buffers.
_FLAX = re.compile(rb"[\x81-\x8f\xde\xdf].{0,8}\xa6params", re.DOTALL)
_MINDSPORE = re.compile(rb"\x0a.{1,3}\x0a.[\w.]+\x12.{1,24}(Float|Int|BFloat)\d+", re.DOTALL)
_CAFFE = re.compile(rb"\x0a.[\w .-]+(\xa2\x06|\x12)", re.DOTALL)
_SHARDED = b'"weight_map"'
_TENSORFLOW = b"_CHECKPOINTABLE_OBJECT_GRAPH"
_TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # last bytes of a LevelDB table: TensorFlow's .index files


def refusal(head: bytes, tail: bytes) -> CheckpointError:
    """Make the error that names a file which is no checkpoint this version reads.

    Args:
        head: First bytes of the file.
        tail: Last bytes of the file.
    """
    name, hint = _name(head, tail)
    return CheckpointError(f"not a recognised checkpoint container: {name}", hint=hint)


def _name(head: bytes, tail: bytes) -> tuple[str, str]:
    """Return (what a file is, what to do)."""
    if not head:
        return "the file is empty", "get the file again"
    if not any(head) and not any(tail):
        return "nothing but zeros", "get the file again"
    for magic, name, hint in _MAGIC:
        if head.startswith(magic):
            return name, hint
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", _GIVE
    if _FLAX.match(head):
        return "a Flax checkpoint (MessagePack)", "save its parameters under a torch state dict's names as safetensors"
    if _MINDSPORE.match(head):
        return "a MindSpore checkpoint", "export the model to ONNX with mindspore.export(…, file_format='ONNX')"
    if _CAFFE.match(head):
        return "a Caffe model (.caffemodel)", "convert it to ONNX, and give that file"
    if tail.endswith(_TABLE_END) or _TENSORFLOW in head:
        return "a TensorFlow checkpoint", "load it in TensorFlow and save a .keras or .weights.h5 file"
    return _text(head)


def _text(head: bytes) -> tuple[str, str]:
    plain = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, name, hint in _TEXTS:
        if plain.startswith(start):
            return name, hint
    if plain.startswith(b"{") and _SHARDED in plain:
        return "the index of a sharded checkpoint", "merge its parts into one safetensors file"
    printable = sum(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head)
    if printable == len(head):
        return "a JSON document" if plain[:1] in (b"{", b"[") else "plain text", _GIVE
    return f"unknown bytes, {head[:8].hex(' ')} …", _GIVE
