"""The op records. Importing this package registers every op."""

from graphc.ir.ops import (
    activation as activation,
)
from graphc.ir.ops import (
    arithmetic as arithmetic,
)
from graphc.ir.ops import (
    assigning as assigning,
)
from graphc.ir.ops import (
    attention as attention,
)
from graphc.ir.ops import (
    attention_nests as attention_nests,
)
from graphc.ir.ops import (
    attention_tiles as attention_tiles,
)
from graphc.ir.ops import (
    average_pooling as average_pooling,
)
from graphc.ir.ops import (
    basic as basic,
)
from graphc.ir.ops import (
    channels_last as channels_last,
)
from graphc.ir.ops import (
    comparison as comparison,
)
from graphc.ir.ops import (
    composite as composite,
)
from graphc.ir.ops import (
    contraction as contraction,
)
from graphc.ir.ops import (
    convolution as convolution,
)
from graphc.ir.ops import (
    creation as creation,
)
from graphc.ir.ops import (
    einsum as einsum,
)
from graphc.ir.ops import (
    fused as fused,
)
from graphc.ir.ops import (
    gather as gather,
)
from graphc.ir.ops import (
    indexing as indexing,
)
from graphc.ir.ops import (
    movement as movement,
)
from graphc.ir.ops import (
    normalization as normalization,
)
from graphc.ir.ops import (
    padding as padding,
)
from graphc.ir.ops import (
    philox as philox,
)
from graphc.ir.ops import (
    pooled_gradient_nests as pooled_gradient_nests,
)
from graphc.ir.ops import (
    pooled_gradients as pooled_gradients,
)
from graphc.ir.ops import (
    pooling as pooling,
)
from graphc.ir.ops import (
    python_kernel as python_kernel,
)
from graphc.ir.ops import (
    random as random,
)
from graphc.ir.ops import (
    rearrange as rearrange,
)
from graphc.ir.ops import (
    recurrent as recurrent,
)
from graphc.ir.ops import (
    recurrent_nests as recurrent_nests,
)
from graphc.ir.ops import (
    reduction as reduction,
)
from graphc.ir.ops import (
    rows as rows,
)
from graphc.ir.ops import (
    scalar as scalar,
)
from graphc.ir.ops import (
    slice_bounds as slice_bounds,
)
from graphc.ir.ops import (
    slicing as slicing,
)
from graphc.ir.ops import (
    softmax as softmax,
)
from graphc.ir.ops import (
    statistics as statistics,
)
from graphc.ir.ops import (
    transcendental as transcendental,
)
from graphc.ir.ops import (
    transposed_convolution as transposed_convolution,
)
from graphc.ir.ops import (
    windows as windows,
)
from graphc.ir.ops import (
    winograd as winograd,
)
from graphc.ir.ops import (
    winograd_tiles as winograd_tiles,
)
