"""Attention between sequences."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError, user_location
from graphc.frontend.gluon.functions import F
from graphc.frontend.gluon.hybrid_block import HybridBlock
from graphc.frontend.gluon.nn.basic import Dense, positive


class MultiHeadAttention(HybridBlock):
    """Attention with several heads, between dense layers.

    Queries, keys and values are projected, cut into heads that attend each for itself, joined and
    projected again. Vaswani et al. 2017, arXiv:1706.03762.

    Parameters
    ----------
    units : int
        Channels of all heads together, and of the result.
    num_heads : int
        Divides ``units``.
    dropout : float
        Probability with which a weight is dropped in training. All scores are stored then.
    use_bias : bool
    causal : bool
        A position sees those up to itself.
    dtype : str
    weight_initializer, bias_initializer : Initializer or str, optional

    Examples
    --------
    >>> from graphc import init, nd
    >>> from graphc.gluon import nn
    >>> layer = nn.MultiHeadAttention(units=8, num_heads=2, causal=True)
    >>> layer.initialize(init.Xavier())
    >>> layer(nd.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(
        self, units: int, num_heads: int, dropout: float = 0.0, use_bias: bool = True,
        causal: bool = False, dtype: Any = "float32", weight_initializer: Any = None,
        bias_initializer: Any = "zeros", **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self._units, self._heads = positive("units", units), positive("num_heads", num_heads)
        if units % num_heads:
            raise ArgumentError(
                f"{units} units do not make {num_heads} heads of equal width",
                remedy="units must be a multiple of num_heads.",
                where=user_location(),
            )
        self._dropout, self._causal = dropout, bool(causal)

        def dense() -> Dense:
            return Dense(
                units, flatten=False, use_bias=use_bias, dtype=dtype,
                weight_initializer=weight_initializer, bias_initializer=bias_initializer,
            )  # fmt: skip

        with self.name_scope():
            self.query, self.key, self.value, self.out = dense(), dense(), dense(), dense()

    def __repr__(self) -> str:
        causal = ", causal" if self._causal else ""
        return f"MultiHeadAttention({self._units}, {self._heads} heads{causal})"

    def forward(
        self, query: Any, key: Any = None, value: Any = None, mask: Any = None,
        valid_length: Any = None,
    ) -> Any:  # fmt: skip
        """Let each query take from the values whose keys it fits.

        Parameters
        ----------
        query : array, shape (N, T, C)
        key : array, shape (N, S, D), optional
            By default the queries.
        value : array, shape (N, S, E), optional
            By default the keys.
        mask : array, shape (N, num_heads, T, S), (N, T, S) or (T, S), optional
            Not zero where a query sees a key.
        valid_length : array, shape (N,), optional
            Keys of each sequence that are seen.

        Returns
        -------
        array, shape (N, T, units)
        """
        key = query if key is None else key
        value = key if value is None else value
        heads = (
            F.reshape(layer(x), (0, 0, self._heads, -1))
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        found = F.scaled_dot_product_attention(
            *heads, mask=mask, valid_length=valid_length, causal=self._causal,
            dropout=self._dropout,
        )  # fmt: skip
        return self.out(F.reshape(found, (0, 0, -1)))
