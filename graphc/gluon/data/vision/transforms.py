"""Transforms of images."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.data.vision.transforms import Cast as Cast
from graphc.frontend.gluon.data.vision.transforms import Compose as Compose
from graphc.frontend.gluon.data.vision.transforms import Normalize as Normalize
from graphc.frontend.gluon.data.vision.transforms import ToTensor as ToTensor
from graphc.frontend.gluon.data.vision.transforms import Transform as Transform

_suggest_attributes(__name__)
