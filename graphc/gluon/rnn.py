"""Recurrent layers and cells; every cell can be compiled, whatever MXNet calls it."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.rnn.cell import RecurrentCell as RecurrentCell
from graphc.frontend.gluon.rnn.cells import GRUCell as GRUCell
from graphc.frontend.gluon.rnn.cells import LSTMCell as LSTMCell
from graphc.frontend.gluon.rnn.cells import RNNCell as RNNCell
from graphc.frontend.gluon.rnn.combined import BidirectionalCell as BidirectionalCell
from graphc.frontend.gluon.rnn.combined import DropoutCell as DropoutCell
from graphc.frontend.gluon.rnn.combined import ModifierCell as ModifierCell
from graphc.frontend.gluon.rnn.combined import ResidualCell as ResidualCell
from graphc.frontend.gluon.rnn.combined import SequentialRNNCell as SequentialRNNCell
from graphc.frontend.gluon.rnn.combined import ZoneoutCell as ZoneoutCell
from graphc.frontend.gluon.rnn.layers import GRU as GRU
from graphc.frontend.gluon.rnn.layers import LSTM as LSTM
from graphc.frontend.gluon.rnn.layers import RNN as RNN

HybridRecurrentCell = RecurrentCell
HybridSequentialRNNCell = SequentialRNNCell

_suggest_attributes(__name__)
