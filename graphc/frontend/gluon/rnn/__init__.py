"""Recurrent layers and cells."""

from graphc.frontend.gluon.rnn.layers import GRU as GRU
from graphc.frontend.gluon.rnn.layers import LSTM as LSTM
from graphc.frontend.gluon.rnn.layers import RNN as RNN
