"""Images of ImageNet's size in predict mode: the same bits under both engines, for any threads."""

from __future__ import annotations

import numpy as np

import graphc
from graphc import nd
from graphc.gluon import nn


def network() -> nn.HybridSequential:
    """Return layers for 224 x 224 images, the last convolution one of 256 channels at 14 x 14."""
    net = nn.HybridSequential()
    for channels, window, stride in ((16, 7, 4), (256, 3, 4), (256, 3, 1)):
        net.add(
            nn.Conv2D(channels, window, strides=stride, padding=window // 2, use_bias=False),
            nn.BatchNorm(),
            nn.Activation("relu"),
        )
    net.add(nn.GlobalAvgPool2D(), nn.Dense(1000))
    net.initialize(graphc.init.Xavier())
    return net


def test_neither_engines_nor_threads_change_a_bit() -> None:
    graphc.random.seed(4)
    net = network()
    x = nd.array(np.random.default_rng(4).standard_normal((1, 3, 224, 224)))
    one_by_one = net(x).asnumpy()
    assert np.abs(one_by_one).max() > 0.01
    found = {}
    for engine in ("llvm", "numba"):
        with graphc.options(engine=engine):
            net.hybridize()
            for threads in (1, 2, 3):
                with graphc.options(threads=threads):
                    found[engine, threads] = net(x).asnumpy()
    assert "winograd_images" in str(net.explain())
    first = found["llvm", 1]
    np.testing.assert_allclose(first, one_by_one, rtol=1e-4, atol=2e-5)
    for key, values in found.items():
        np.testing.assert_array_equal(values, first, err_msg=str(key))
