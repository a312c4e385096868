"""File formats of arrays: MXNet's NDArray list and safetensors, written atomically."""

from graphc.frontend.formats.arrays import load_arrays as load_arrays
from graphc.frontend.formats.arrays import save_arrays as save_arrays
from graphc.frontend.formats.atomic import atomic_write as atomic_write
