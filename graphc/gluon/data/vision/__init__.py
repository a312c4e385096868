"""Image datasets and transforms."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.data.vision.datasets import MNIST as MNIST
from graphc.frontend.gluon.data.vision.datasets import FashionMNIST as FashionMNIST
from graphc.frontend.gluon.data.vision.datasets import MNISTSample as MNISTSample
from graphc.gluon.data.vision import transforms as transforms

_suggest_attributes(__name__)
