"""Export: one ONNX file that leaves early by itself."""

from offramp.errors import UsageError

try:
    import onnx_ir  # noqa: F401
    import onnxscript  # noqa: F401
except ImportError as error:
    raise UsageError("export needs onnx and onnxscript: pip install 'offramp[onnx]'") from error

from offramp.export.onnx import export_onnx, export_static_onnx

__all__ = ["export_onnx", "export_static_onnx"]
