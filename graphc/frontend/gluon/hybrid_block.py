"""HybridBlock: a Block that can be compiled."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError, GraphcError, user_location
from graphc.frontend.export_library import ExportedLibrary, export_library, predicting
from graphc.frontend.gluon.block import Block, Changes
from graphc.frontend.gluon.functions import F as functions
from graphc.frontend.gluon.input_shapes import as_arrays
from graphc.frontend.gluon.parameter import composing
from graphc.frontend.jit import Jit
from graphc.frontend.tracer import current_trace


class HybridBlock(Block):
    """A Block whose ``forward`` runs imperatively or, after ``hybridize()``, compiled.

    Override ``forward(self, x)``, or as in MXNet ``hybrid_forward(self, F, x, **params)``, which
    also gets the Block's own Parameters by name; ``F`` is the module `graphc.nd`.

    Parameters
    ----------
    prefix : str, optional
    params : ParameterDict, optional
        As of :class:`Block`.
    """

    _active: bool
    _jit: Jit | None
    _seen: int
    _versions: tuple[tuple[int, int], ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__.update(_active=False, _jit=None, _seen=-1, _versions=())

    def __getstate__(self) -> dict[str, Any]:
        # A copy, or what is read from a pickle, compiles its own programs.
        return {**self.__dict__, "_jit": None}

    def hybridize(
        self, active: bool = True, static_alloc: bool = False, static_shape: bool = False,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Compile this Block and what is in it as one program, from the next call on.

        Parameters
        ----------
        active : bool
            False goes back to running imperatively.
        static_alloc, static_shape : bool
            Without meaning: memory is always planned, and a batch size never recompiles.
        """
        self.__dict__.update(_active=bool(active), _jit=None)
        super().hybridize(active, static_alloc=static_alloc, static_shape=static_shape, **kwargs)

    def _compute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if True in [hasattr(type(a), "__graphc_compose__") for a in args]:
            with composing():
                return self.forward(*args, **kwargs)
        if not self._active or current_trace() is not None:
            return self._traced(*args, **kwargs)
        args, kwargs = as_arrays((args, kwargs))
        self._shape_pass(self._traced, args, kwargs)
        return self._program()(*args, **kwargs)

    def _program(self) -> Jit:
        """Return the compiled form, without traces if something in the Block was changed."""
        program = self._jit
        if program is None:
            program = self.__dict__["_jit"] = Jit(self._traced, self.name)
        if self._seen != Changes.count:
            versions = tuple((id(block), block._version) for block in self.blocks())
            if versions != self._versions:
                program.clear()
            self.__dict__.update(_seen=Changes.count, _versions=versions)
        return program

    def _traced(self, *args: Any, **kwargs: Any) -> Any:
        self._complete_own(args)
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; by default through ``hybrid_forward``."""
        if type(self).hybrid_forward is HybridBlock.hybrid_forward:
            raise NotImplementedError(
                f"{type(self).__name__} defines neither forward nor hybrid_forward"
            )
        params = {name: parameter.data() for name, parameter in self._reg_params.items()}
        return self.hybrid_forward(functions, *args, **kwargs, **params)

    def hybrid_forward(self, F: Any, *args: Any, **params: Any) -> Any:
        """Compute the output with the functions of ``F``; Parameters come as keywords."""
        raise NotImplementedError

    def _complete_own(self, args: tuple[Any, ...]) -> None:
        try:
            super()._complete_own(args)
        except GraphcError as error:
            if type(self).infer_shape is not Block.infer_shape or not self._waiting():
                raise
            raise ArgumentError(
                f"the shape of parameter {self._waiting()} of {type(self).__name__} is not known",
                remedy="Give all sizes to params.get, or override infer_shape(self, x), which sets "
                "self.<name>.shape from the inputs.",
                where=user_location(),
            ) from error

    def _waiting(self) -> str:
        names = [p.name for p in self._reg_params.values() if p.deferred]
        return ", ".join(names)

    def export_library(
        self, path: Any, *examples: Any, target: str = "host", weights: str = "inside",
        link: bool = True, linker: str | None = None,
    ) -> ExportedLibrary:  # fmt: skip
        """Write the network as a shared library that needs no Python, for prediction.

        Parameters
        ----------
        path : path-like
            ``"out/lenet"`` makes ``out/liblenet.so``, ``out/lenet.h``, which says how to call it,
            and ``out/lenet.json``.
        *examples : NDArray
            What the network is called with; only shapes and types matter. Not needed where it was
            compiled for one kind of inputs before.
        target, weights, link, linker : optional
            As of `graphc.export_library`, which also tells what is refused.

        Returns
        -------
        ExportedLibrary
            The files.
        """
        if examples:
            examples = as_arrays(examples)
            with predicting():
                self._shape_pass(self._traced, examples, {})
        return export_library(
            self._program(), path, *examples, target=target, weights=weights, link=link,
            linker=linker,
        )  # fmt: skip

    def explain(self) -> str:
        """Return a text: which programs were compiled, for which sizes, and why each was needed."""
        if not self._active:
            return f"{self.name} is not hybridized: its operations run one by one."
        return self._program().explain()
