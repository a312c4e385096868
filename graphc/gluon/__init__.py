"""Networks as Python objects: Blocks, Parameters, losses, training, data."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.block import Block as Block
from graphc.frontend.gluon.constant import Constant as Constant
from graphc.frontend.gluon.hybrid_block import HybridBlock as HybridBlock
from graphc.frontend.gluon.parameter import Parameter as Parameter
from graphc.frontend.gluon.parameter_dict import ParameterDict as ParameterDict
from graphc.frontend.gluon.train_step import TrainStep as TrainStep
from graphc.frontend.gluon.trainer import Trainer as Trainer
from graphc.gluon import data as data
from graphc.gluon import loss as loss
from graphc.gluon import nn as nn
from graphc.gluon import parameter as parameter
from graphc.gluon import rnn as rnn
from graphc.gluon import utils as utils

_suggest_attributes(__name__)
