"""Recording what is computed, and gradients of it."""

from graphc.errors import suggest_attributes as _suggest_attributes
from graphc.frontend.autograd import Function as Function
from graphc.frontend.autograd import backward as backward
from graphc.frontend.autograd import grad as grad
from graphc.frontend.autograd import is_recording as is_recording
from graphc.frontend.autograd import is_training as is_training
from graphc.frontend.autograd import mark_variables as mark_variables
from graphc.frontend.autograd import pause as pause
from graphc.frontend.autograd import predict_mode as predict_mode
from graphc.frontend.autograd import record as record
from graphc.frontend.autograd import set_recording as set_recording
from graphc.frontend.autograd import set_training as set_training
from graphc.frontend.autograd import train_mode as train_mode

_suggest_attributes(__name__)
