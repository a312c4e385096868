"""Losses."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.loss import L1 as L1
from graphc.frontend.gluon.loss import L2 as L2
from graphc.frontend.gluon.loss import Hinge as Hinge
from graphc.frontend.gluon.loss import HingeLoss as HingeLoss
from graphc.frontend.gluon.loss import Huber as Huber
from graphc.frontend.gluon.loss import HuberLoss as HuberLoss
from graphc.frontend.gluon.loss import KLDiv as KLDiv
from graphc.frontend.gluon.loss import KLDivLoss as KLDivLoss
from graphc.frontend.gluon.loss import L1Loss as L1Loss
from graphc.frontend.gluon.loss import L2Loss as L2Loss
from graphc.frontend.gluon.loss import Loss as Loss
from graphc.frontend.gluon.loss import SigmoidBCE as SigmoidBCE
from graphc.frontend.gluon.loss import SigmoidBCELoss as SigmoidBCELoss
from graphc.frontend.gluon.loss import (
    SigmoidBinaryCrossEntropyLoss as SigmoidBinaryCrossEntropyLoss,
)
from graphc.frontend.gluon.loss import SoftmaxCE as SoftmaxCE
from graphc.frontend.gluon.loss import SoftmaxCELoss as SoftmaxCELoss
from graphc.frontend.gluon.loss import SoftmaxCrossEntropyLoss as SoftmaxCrossEntropyLoss
from graphc.frontend.gluon.loss import SquaredHingeLoss as SquaredHingeLoss
from graphc.frontend.gluon.loss import TripletLoss as TripletLoss

_suggest_attributes(__name__)
