"""Recurrent layers and cells."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.gluon.rnn.layers import GRU as GRU
from graphc.frontend.gluon.rnn.layers import LSTM as LSTM
from graphc.frontend.gluon.rnn.layers import RNN as RNN

_suggest_attributes(__name__)
