"""Compose a graph from variables, bind arrays to it, and run it: ``python examples/symbol.py``.

``a + b`` computes nothing yet: it is a Symbol. `bind` gives its variables arrays, and `forward`
compiles and runs the graph; it returns a list, for a Symbol may have several outputs.
"""

import graphc
from graphc import nd, sym

ctx = graphc.gpu(0) if graphc.num_gpus() else graphc.cpu()
x = nd.ones((2, 3), ctx=ctx) * 5
a = sym.Variable("a")
b = sym.Variable("b")
out = (a + b).bind(ctx, a=x, b=x).forward()
print(out)

# The same with a dict, which takes any name a variable may have.
print((a + b).bind(ctx, {"a": x, "b": x}).forward()[0])
